"""Identities and their embeddings in one SQLite file that several processes may write.

Letters: N entries (embedded images), I identities, D dimensions, Q queries.
"""

import glob
import hashlib
import os
import sqlite3
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

import numpy as np
from ember_reid.tools.common.feature_file import check_embeddings
from ember_reid.tools.common.stored_network import StoredNetwork
from ember_reid.tools.gallery.database import (
    check_schema,
    connect,
    create_tables,
    transaction,
    translated,
)
from ember_reid.tools.gallery.snapshot import CachedSnapshot, Snapshot, query

MAX_NAME = 200  # characters
Result = TypeVar("Result")


@dataclass(frozen=True)
class Entry:
    """An embedded image; `camera` and `source` are "" if they are unknown."""

    embedding: np.ndarray
    camera: str = ""
    source: str = ""


class Gallery:
    """An open gallery, which several threads may use.

    Every change is on disk when a method returns.

    Args:
        path: an existing gallery, see `create`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or it is no gallery.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(
                f"there is no gallery {self.path}; ember-reid gallery add --weights FILE creates it"
            )
        self._lock = threading.RLock()
        self._connection = connect(self.path)
        self._cached: CachedSnapshot | None = None
        try:
            with self._reading() as rows:
                check_schema(rows, self.path)
                self.network = StoredNetwork(
                    *(self._setting(name) for name in ("card", "weights", "config"))
                )
            self.metadata = self.network.metadata
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def create(cls, path: str | Path, network: StoredNetwork) -> "Gallery":
        """Create an empty gallery for the embeddings of one network; fails if the file exists."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{os.getpid()}.{path.name}")
        try:
            create_tables(draft, {**vars(network), "additions": "0", "removals": "0"})
            _publish(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        return cls(path)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, name: str, entries: Sequence[Entry]) -> int:
        """Add images to one identity, see `add_all`."""
        return self.add_all({name: entries})

    def add_all(self, entries: Mapping[str, Sequence[Entry]]) -> int:
        """Add images to identities, which are created if they are new.

        Returns:
            The number of new entries. An embedding that the identity already has is not added.
        """
        named = {check_name(name): list(images) for name, images in entries.items()}
        self._check_entries([entry for images in named.values() for entry in images])
        return self._write(lambda: sum(self._insert(name, named[name]) for name in named))

    def identify(self, entry: Entry, *, threshold: float) -> tuple[str, bool]:
        """Add an image to the nearest identity, or to a new one if none is near enough.

        Deciding and adding are one transaction, so that two processes do not create two identities.

        Args:
            threshold: the largest cosine distance to an image of the same identity.

        Returns:
            The name of the identity, and whether it is new.
        """
        self._check_entries([entry])

        def decide() -> tuple[str, bool]:
            current = self._read_snapshot()
            answer = query(current, entry.embedding, top=1, threshold=threshold)
            name = answer.candidates[0].name if answer.known else new_name(current.names)
            self._insert(name, [entry])
            return name, not answer.known

        return self._write(decide)

    def merge(self, kept: str, others: Sequence[str]) -> int:
        """Move all entries of other identities to one; returns the number of moved entries.

        Raises:
            ValueError: an identity does not exist, or is to be merged with itself.
        """
        if kept in others:
            raise ValueError(f"{kept!r} cannot be merged with itself")

        def move() -> int:
            target, moved = self._identity(kept), 0
            for name in dict.fromkeys(others):
                source = self._identity(name)
                # An embedding that both identities have is deleted with the identity.
                moved += self._connection.execute(
                    "UPDATE OR IGNORE entries SET identity = ? WHERE identity = ?",
                    (target, source),
                ).rowcount
                self._connection.execute("DELETE FROM identities WHERE id = ?", (source,))
            return moved

        return self._write(move, removes=True)

    def forget(self, names: Sequence[str]) -> int:
        """Delete identities with all their entries; returns the number of deleted entries.

        SQLite overwrites the deleted content with zeros, and indexes next to the gallery are
        deleted. Copies of the file are not affected.

        Raises:
            ValueError: an identity does not exist; then nothing is deleted.
        """

        def delete() -> int:
            count = 0
            for name in dict.fromkeys(names):
                identity = self._identity(name)
                count += self._connection.execute(
                    "DELETE FROM entries WHERE identity = ?", (identity,)
                ).rowcount
                self._connection.execute("DELETE FROM identities WHERE id = ?", (identity,))
            return count

        return self._write(delete, removes=True)

    def snapshot(self) -> Snapshot:
        """The current content. It is read again only if a process has changed the gallery."""
        with self._reading():
            return self._read_snapshot()

    def remove_indexes(self) -> None:
        """Delete the faiss indexes next to the gallery, which contain its embeddings."""
        name = glob.escape(self.path.name)
        for pattern in (f"{name}.*.faiss", f".*.{name}.*.faiss"):
            for path in self.path.parent.glob(pattern):
                path.unlink(missing_ok=True)

    def _check_entries(self, entries: Sequence[Entry]) -> None:
        if entries:
            embeddings = np.stack([entry.embedding for entry in entries])
            check_embeddings(embeddings, count=len(entries), dim=self.metadata.embedding_dim)

    def _insert(self, name: str, entries: Sequence[Entry]) -> int:
        self._connection.execute("INSERT OR IGNORE INTO identities (name) VALUES (?)", (name,))
        identity, added = self._identity(name), 0
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        for entry in entries:
            blob = np.ascontiguousarray(entry.embedding, dtype="<f4").tobytes()
            digest = hashlib.blake2b(blob, digest_size=16).digest()
            added += self._connection.execute(
                "INSERT OR IGNORE INTO entries (identity, camera, source, added, digest, "
                "embedding) VALUES (?, ?, ?, ?, ?, ?)",
                (identity, entry.camera, entry.source, now, digest, blob),
            ).rowcount
        return added

    def _identity(self, name: str) -> int:
        row = self._connection.execute(
            "SELECT id FROM identities WHERE name = ?", (unicodedata.normalize("NFC", name),)
        ).fetchone()
        if row is None:
            raise ValueError(f"there is no identity {name[:MAX_NAME]!r} in {self.path}")
        return row[0]

    def _setting(self, name: str) -> str:
        row = self._connection.execute(
            "SELECT value FROM settings WHERE name = ?", (name,)
        ).fetchone()
        if row is None or not isinstance(row[0], str):
            raise ValueError(f"{self.path} is damaged: the setting {name} is missing")
        return row[0]

    def _read_snapshot(self) -> Snapshot:
        version = self._setting("additions"), self._setting("removals")
        cached = self._cached
        if cached is not None and cached.version == version:
            return cached.snapshot
        # Without a removal in between, only new rows have to be read.
        if cached is None or cached.version[1] != version[1]:
            cached = CachedSnapshot.empty(self.metadata.embedding_dim)
        identities = self._connection.execute(
            "SELECT id, name FROM identities WHERE id > ? ORDER BY id", (cached.last_identity,)
        ).fetchall()
        rows = self._connection.execute(
            "SELECT id, identity, camera, source, embedding FROM entries WHERE id > ? ORDER BY id",
            (cached.last_entry,),
        ).fetchall()
        try:
            self._cached = cached.extend(version, identities, rows)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path} is damaged: {error}") from error
        return self._cached.snapshot

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction that sees one state of the file."""
        with self._lock, translated(self.path), transaction(self._connection, "DEFERRED"):
            yield self._connection

    def _write(self, change: Callable[[], Result], *, removes: bool = False) -> Result:
        """Run a change as one transaction: all of it is on disk afterwards, or nothing."""
        with self._lock:
            with translated(self.path), transaction(self._connection):
                result = change()
                self._connection.execute(
                    "UPDATE settings SET value = CAST(value AS INTEGER) + 1 WHERE name = ?",
                    ("removals" if removes else "additions",),
                )
            if removes:
                self.remove_indexes()
        return result


def _publish(draft: Path, path: Path) -> None:
    """Give a draft its name; raises FileExistsError if there is such a file."""
    try:
        # Unlike a rename, a link fails if another process has created the file meanwhile.
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError as error:
        # Some file systems have no links.
        if path.exists():
            raise FileExistsError(f"{path} exists") from error
        draft.rename(path)


def new_name(names: Sequence[str]) -> str:
    """The first unused name of the form id-000001."""
    known, number = set(names), len(names) + 1
    while (name := f"id-{number:06d}") in known:
        number += 1
    return name


def check_name(name: str) -> str:
    """The name of an identity in normal form.

    Raises:
        ValueError: it is empty, too long, or contains control characters.
    """
    normal = unicodedata.normalize("NFC", name).strip()
    if not normal or len(normal) > MAX_NAME or not normal.isprintable():
        raise ValueError(
            f"the name of an identity must have 1 to {MAX_NAME} printable characters, "
            f"found {name[:MAX_NAME]!r}"
        )
    return normal
