"""Items in lists of a size, and results made ahead."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def chunks(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Cuts an iterator into lists of `size`; the last one may be shorter."""
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def prefetch(make: Callable[[], T], depth: int = 2) -> Iterator[T]:
    """Yields what `make` returns, call after call, made ahead in one other thread.

    Args:
        make: Called without end, never twice at the same time.
        depth: How many results are made ahead.
    """
    with ThreadPoolExecutor(1) as thread:
        try:
            waiting = [thread.submit(make) for _ in range(depth)]
            while True:
                result = waiting.pop(0).result()
                waiting.append(thread.submit(make))
                yield result
        finally:
            thread.shutdown(wait=False, cancel_futures=True)
