"""What all tests share: nothing phones home, threads wait politely, `world` can be imported."""

import os
import secrets
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

os.environ["DO_NOT_TRACK"] = "true"
os.environ["DVC_NO_ANALYTICS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# As in dvc.yaml. Two processes of tests whose threads spin take each other's processors: the tests
# of models take three times as long.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
# Of clusters that tests start in this process. Ray reads it once, when it is imported.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest file first, and skips what needs a GPU where there is none."""
    items.sort(key=lambda item: item.path.name != "test_flows.py")
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
