"""Items in lists of a size, results made ahead, and what is made of those that can be read."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from brewline.samples.utterance import BadSampleError, Utterance

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


def make_of_good(
    make: Callable[[Sequence[Utterance]], T], utterances: Sequence[Utterance]
) -> tuple[T | None, Sequence[Utterance], dict[str, str]]:
    """What a function makes of those utterances of which it can make something.

    Returns:
        What it makes of them together, or None of nobody; them; and why it cannot of each other
        one, by its id.
    """
    bad: dict[str, str] = {}
    try:
        return (make(utterances) if utterances else None), utterances, bad
    except BadSampleError:
        # Which they are is found out one by one.
        for one in utterances:
            try:
                make([one])
            except BadSampleError as error:
                bad[one.utterance_id] = str(error)
    good = [one for one in utterances if one.utterance_id not in bad]
    return (make(good) if good else None), good, bad
