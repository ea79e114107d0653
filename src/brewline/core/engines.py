"""The engines by their names."""

import contextlib
from collections.abc import Iterator

from brewline.core.compute import EngineName
from brewline.core.engine import Engine, Processes
from brewline.core.ray_engine import RayCluster


@contextlib.contextmanager
def open_engine(name: EngineName, workers: int, ray_address: str) -> Iterator[Engine]:
    """The engine of that name.

    Args:
        name: Where units are done.
        workers: How many at a time; of a cluster that is started here too.
        ray_address: Of Ray's cluster, `host:port`; `auto` for that which this machine is part of,
            `local` to start one here.

    Raises:
        BrewlineError: Ray is not installed, or there is no cluster at that address.
    """
    if name == "processes":
        yield Processes(workers)
        return
    with RayCluster(ray_address, workers) as cluster:
        yield cluster
