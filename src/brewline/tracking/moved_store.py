"""A SQLite store that was moved or copied with its project: its artifacts lie beside it again.

Without a server MLflow writes down where artifacts lie by absolute paths, and has no command to
change them.
"""

import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

# The folder beside the database that has the artifacts of every experiment.
ARTIFACTS = "mlartifacts"
# Every column of MLflow's schema that says where files lie.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def mend_moved_store(database: Path) -> None:
    """Makes all that the store has under the `mlartifacts` of an earlier place point here.

    Places that other programs chose (a bucket, another folder) are left as they are, and so is a
    path that leads here by another name.

    Args:
        database: The file; its schema may be of any version, or not there yet.

    Raises:
        sqlite3.Error: it is no database, or it is locked for long.
    """
    here = (database.absolute().parent / ARTIFACTS).as_uri()
    connection = sqlite3.connect(database, timeout=60)
    try:
        places = [place for place in _PLACES if _has(connection, *place)]
        for there in sorted(_earlier_places(connection, places, here)):
            for table, column in places:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
                    f" WHERE substr({column}, 1, ?) = ?",
                    (here, len(there) + 1, len(there) + 1, f"{there}/"),
                )
        connection.commit()
    finally:
        connection.close()


def _has(connection: sqlite3.Connection, table: str, column: str) -> bool:
    return any(row[1] == column for row in connection.execute(f"PRAGMA table_info({table})"))


def _earlier_places(
    connection: sqlite3.Connection, places: list[tuple[str, str]], here: str
) -> set[str]:
    found = set()
    for table, column in places:
        marked = f"%/{ARTIFACTS}/%"
        query = f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE ?"
        for (uri,) in connection.execute(query, (f"file:///{marked}",)):
            # The last one: a project may lie below a folder of this name.
            there = str(uri).rpartition(f"/{ARTIFACTS}/")[0] + f"/{ARTIFACTS}"
            if there != here and not _same(there, here):
                found.add(there)
    return found


def _same(one: str, other: str) -> bool:
    paths = [Path(unquote(urlsplit(uri).path)) for uri in (one, other)]
    return paths[0].resolve() == paths[1].resolve()
