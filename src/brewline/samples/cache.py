"""What is made once and kept while there is memory for it."""

import threading
from typing import Generic, TypeVar

# What a tensor and its key cost beside its data.
OVERHEAD_BYTES = 200

T = TypeVar("T")


class Cache(Generic[T]):
    """Keeps the first entries that fit; later ones are made anew each time.

    Training meets its entries in rounds: if they do not all fit, dropping the oldest would drop
    each one just before it is met again.
    """

    def __init__(self, max_bytes: int) -> None:
        self._entries: dict[str, T] = {}
        self._free_bytes = max_bytes
        self._lock = threading.Lock()

    def get(self, key: str) -> T | None:
        """What is kept under a key, if anything is."""
        return self._entries.get(key)

    def put(self, key: str, value: T, num_bytes: int) -> None:
        """Keeps a value, if there is room for it."""
        with self._lock:
            if num_bytes <= self._free_bytes and key not in self._entries:
                self._entries[key] = value
                self._free_bytes -= num_bytes
