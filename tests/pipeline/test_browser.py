"""Both UIs in a headless browser; needs the optional packages `browser` and Debian's Chromium."""

from pathlib import Path

import pytest
from driving import Services

tour = pytest.importorskip("tour", reason="playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("services"),
    pytest.mark.skipif(not tour.CHROMIUM.exists(), reason="Chromium is not installed"),
]


def test_a_person_starts_a_run_and_compares_models(services: Services, tmp_path: Path) -> None:
    assert tour.walk(services.prefect, services.mlflow, tmp_path) == "COMPLETED"
    for name in ("form", "run", "compare", "registry"):
        assert (tmp_path / f"operate-{name}.png").stat().st_size > 10_000
