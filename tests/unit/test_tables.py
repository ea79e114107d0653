"""Tables read in parts and joined: held against reading and writing them whole."""

from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from brewline.core.errors import BrewlineError
from brewline.tables import parquet
from brewline.tables.parquet import join_tables, read_column, read_rows, read_table, write_table
from brewline.tables.transcripts import TRANSCRIPTS


def rows(count: int) -> list[dict[str, Any]]:
    word = {"word": "a", "start_s": 0.5, "end_s": 1.0, "probability": 0.25}
    return [
        dict.fromkeys(TRANSCRIPTS.names)
        | {
            "utterance_id": f"u{number}",
            "split": "train",
            "text": "" if number % 3 else f"text {number}",
            "num_windows": 1,
            "num_frames": number,
            "status": "ok",
            "reason": None if number % 4 else "unsure",
            "asr_model": "fake",
            "words": None if number % 2 else [word] * (number % 3),
        }
        for number in range(count)
    ]


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 7)


@pytest.mark.parametrize("sizes", [[], [0], [3], [7], [6, 1], [6, 2], [2, 0, 20], [1] * 15])
def test_tables_are_joined_to_the_bytes_of_one(tmp_path: Path, sizes: list[int]) -> None:
    everything = rows(sum(sizes))
    write_table(tmp_path / "whole", TRANSCRIPTS, everything)
    parts, start = [], 0
    for number, size in enumerate(sizes):
        parts.append(tmp_path / str(number))
        write_table(parts[-1], TRANSCRIPTS, everything[start : start + size])
        start += size
    join_tables(tmp_path / "joined", TRANSCRIPTS, parts)
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_part_that_is_damaged_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    write_table(tmp_path / "a", TRANSCRIPTS, rows(3))
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes()[:-9])
    with pytest.raises(BrewlineError, match="b is not a whole Parquet file"):
        join_tables(tmp_path / "joined", TRANSCRIPTS, [tmp_path / "a", tmp_path / "b"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_rows_are_read_by_their_place(tmp_path: Path) -> None:
    write_table(tmp_path / "table", TRANSCRIPTS, rows(30))
    whole = read_table(tmp_path / "table")
    for start in range(31):
        for stop in range(start, 31):
            found = read_rows(tmp_path / "table", slice(start, stop), TRANSCRIPTS.names)
            assert found == whole[start:stop]
    assert read_rows(tmp_path / "table", slice(6, 8), ["num_frames"]) == [
        {"num_frames": 6},
        {"num_frames": 7},
    ]
    assert read_column(tmp_path / "table", "num_frames").to_pylist() == list(range(30))


def test_only_the_groups_of_the_rows_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path / "table", TRANSCRIPTS, rows(30))
    decoded = []
    read_row_group = pyarrow.parquet.ParquetFile.read_row_group

    def watch(self: Any, number: int, **options: Any) -> Any:
        decoded.append(number)
        return read_row_group(self, number, **options)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "read_row_group", watch)
    read_rows(tmp_path / "table", slice(8, 15), ["utterance_id"])
    assert decoded == [1, 2]
