"""The SQLite file of a gallery: connections, transactions and tables."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

APPLICATION_ID = 0x656D6267  # "embg", identifies our files
LOCK_SECONDS = 30.0
TABLES = (
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE identities (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, "
    "identity INTEGER NOT NULL REFERENCES identities (id) ON DELETE CASCADE, "
    "camera TEXT NOT NULL, source TEXT NOT NULL, added TEXT NOT NULL, digest BLOB NOT NULL, "
    "embedding BLOB NOT NULL, UNIQUE (identity, digest))",
)


def connect(path: Path) -> sqlite3.Connection:
    """A connection without implicit transactions, which overwrites deleted content."""
    with translated(path):
        connection = sqlite3.connect(
            path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
        for pragma in (
            "trusted_schema = OFF",
            "secure_delete = ON",
            "foreign_keys = ON",
            "journal_mode = DELETE",
            "synchronous = FULL",
        ):
            connection.execute(f"PRAGMA {pragma}")
    return connection


def create_tables(path: Path, settings: Mapping[str, str]) -> None:
    """Create the file of an empty gallery."""
    connection = connect(path)
    try:
        with translated(path), transaction(connection):
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            for table in TABLES:
                connection.execute(table)
            connection.executemany("INSERT INTO settings VALUES (?, ?)", settings.items())
    finally:
        connection.close()


def check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Raise ValueError unless the file has our tables and nothing else, such as triggers."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    if application_id != APPLICATION_ID or sorted(row[0] for row in rows) != sorted(TABLES):
        raise ValueError(f"{path} is an SQLite file, but not a gallery")


@contextmanager
def transaction(connection: sqlite3.Connection, mode: str = "IMMEDIATE") -> Iterator[None]:
    """All changes are on disk afterwards, or none of them if an exception leaves the block."""
    connection.execute(f"BEGIN {mode}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn errors of SQLite into errors of the user."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OSError(f"{path}: {error}; nothing was changed") from error
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path} is not a gallery, or it is damaged: {error}") from error
