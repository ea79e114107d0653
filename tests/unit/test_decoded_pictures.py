"""Decoded pictures lie in a file that processes share, whatever happens to one of them."""

import mmap
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from brewline.samples import decoded_pictures
from brewline.samples.decoded_pictures import DecodedPictures, Squares

SIDE = 512
# Of such squares a MiB holds one.
SQUARE_MB = 3 * SIDE * SIDE / (1 << 20)


def squares(number: int, count: int = 1, side: int = 8) -> Squares:
    rng = np.random.default_rng(number)
    return rng.integers(0, 255, (count, 3, side, side), dtype=np.uint8)


def test_what_one_keeps_another_finds(tmp_path: Path) -> None:
    one, other = (DecodedPictures(tmp_path / "p", 8, 1) for _ in range(2))
    assert one.get([1, 2]) == {}
    one.put({1: squares(1), 2: squares(2, count=3)})
    other.put({3: squares(3), 1: squares(99)})
    for reader in (one, other, DecodedPictures(tmp_path / "p", 8, 1)):
        found = reader.get([3, 1, 2, 4])
        assert found.keys() == {1, 2, 3}
        for number, count in ((1, 1), (2, 3), (3, 1)):
            assert np.array_equal(found[number], squares(number, count))


def test_the_first_that_fit_are_kept(tmp_path: Path) -> None:
    kept = DecodedPictures(tmp_path / "p", SIDE, int(2 * SQUARE_MB) + 1)
    kept.put({1: squares(1, side=SIDE), 2: squares(2, 2, SIDE), 3: squares(3, side=SIDE)})
    kept.put({4: squares(4, side=SIDE)})
    assert kept.get([1, 2, 3, 4]).keys() == {1, 3}
    assert (tmp_path / "p/squares.u8").stat().st_size == 2 * 3 * SIDE * SIDE
    nothing = DecodedPictures(tmp_path / "q", SIDE, 0)
    nothing.put({1: squares(1, side=SIDE)})
    assert nothing.get([1]) == {}


@pytest.mark.parametrize("lost", ["squares.u8", "pictures.bin"])
def test_what_was_cut_is_decoded_again_and_never_shown(tmp_path: Path, lost: str) -> None:
    """As after a loss of power, or by whoever is killed within a write."""
    DecodedPictures(tmp_path / "p", 8, 1).put({1: squares(1), 2: squares(2)})
    content = (tmp_path / "p" / lost).read_bytes()
    (tmp_path / "p" / lost).write_bytes(content[:-5])
    after = DecodedPictures(tmp_path / "p", 8, 1)
    assert after.get([1, 2]).keys() == {1}
    after.put({3: squares(3)})
    again = DecodedPictures(tmp_path / "p", 8, 1)
    assert np.array_equal(again.get([3])[3], squares(3))
    assert np.array_equal(again.get([1])[1], squares(1))


def test_other_bytes_are_noticed(tmp_path: Path) -> None:
    DecodedPictures(tmp_path / "p", 8, 1).put({1: squares(1), 2: squares(2)})
    path = tmp_path / "p/squares.u8"
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)
    assert DecodedPictures(tmp_path / "p", 8, 1).get([1, 2]).keys() == {2}


def keep_some(folder: Path, numbers: list[int]) -> None:
    kept = DecodedPictures(folder, 8, 1)
    for number in numbers:
        kept.put({number: squares(number)})
        assert np.array_equal(kept.get([number])[number], squares(number))


def test_processes_write_beside_one_another(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    numbers = list(range(60))
    workers = [
        context.Process(target=keep_some, args=(tmp_path / "p", order))
        for order in (numbers, numbers[::-1])
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    found = DecodedPictures(tmp_path / "p", 8, 1).get(numbers)
    assert all(np.array_equal(found[number], squares(number)) for number in numbers)
    # Each once.
    assert (tmp_path / "p/squares.u8").stat().st_size == 60 * 3 * 8 * 8


def test_what_the_disk_does_not_give_is_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = DecodedPictures(tmp_path / "p", 8, 1)
    kept.put({1: squares(1), 2: squares(2)})

    def load(mapped: mmap.mmap, start: int, size: int) -> None:
        if start == 3 * 8 * 8:
            raise OSError("Input/output error")

    monkeypatch.setattr(decoded_pictures, "load_mapped", load)
    assert kept.get([1, 2]).keys() == {1}
