"""The content of a gallery in memory, and which of its identities are near an image.

Letters: N entries (embedded images), I identities, D dimensions.
"""

from dataclasses import dataclass

import numpy as np
from ember_reid.tools.common.feature_file import check_embeddings


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The content of a gallery at one time.

    Attributes:
        names: of the I identities.
        owners: int64 [N], positions in `names`.
        embeddings: float32 [N, D] of length 1.
        cameras, sources: N texts.
    """

    names: tuple[str, ...]
    owners: np.ndarray
    embeddings: np.ndarray
    cameras: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class CachedSnapshot:
    """The content that was read last, to which new rows are appended.

    Attributes:
        version: numbers of additions and removals at that time.
        positions: id of an identity -> its position in `snapshot.names`.
        last_entry: largest id of an entry.
    """

    version: tuple[str, str]
    positions: dict[int, int]
    last_entry: int
    snapshot: Snapshot

    @classmethod
    def empty(cls, dim: int) -> "CachedSnapshot":
        owners, embeddings = np.empty(0, np.int64), np.empty((0, dim), np.float32)
        return cls(("", ""), {}, 0, Snapshot((), owners, embeddings, (), ()))

    @property
    def last_identity(self) -> int:
        return max(self.positions, default=0)

    def extend(self, version: tuple[str, str], identities: list, rows: list) -> "CachedSnapshot":
        """Append identities (id, name) and entries (id, identity, camera, source, embedding)."""
        old = self.snapshot
        numbers = range(len(old.names), len(old.names) + len(identities))
        positions = self.positions | {
            identity: number for (identity, _), number in zip(identities, numbers, strict=True)
        }
        shape = len(rows), old.embeddings.shape[1]
        blob = b"".join(row[4] for row in rows)
        embeddings = np.frombuffer(blob, "<f4").reshape(shape).astype(np.float32)
        check_embeddings(embeddings, count=len(rows), dim=shape[1])
        owners = np.array([positions[row[1]] for row in rows], dtype=np.int64)
        snapshot = Snapshot(
            names=(*old.names, *(name for _, name in identities)),
            owners=np.concatenate([old.owners, owners]),
            embeddings=np.concatenate([old.embeddings, embeddings]),
            cameras=(*old.cameras, *(row[2] for row in rows)),
            sources=(*old.sources, *(row[3] for row in rows)),
        )
        last_entry = rows[-1][0] if rows else self.last_entry
        return CachedSnapshot(version, positions, last_entry, snapshot)


@dataclass(frozen=True)
class Candidate:
    """An identity, and the cosine distance and source of its nearest image."""

    name: str
    distance: float
    source: str


@dataclass(frozen=True)
class Answer:
    """The identities near an image.

    Attributes:
        known: whether the nearest one is within the threshold; None without a threshold.
        candidates: nearest first; empty for an empty gallery.
    """

    known: bool | None
    candidates: tuple[Candidate, ...]

    def __str__(self) -> str:
        if not self.candidates:
            return "unknown (the gallery is empty)"
        first = self.candidates[0]
        if self.known is False:
            return f"unknown (the nearest is {first.name} at {first.distance:.3f})"
        return f"{first.name} at {first.distance:.3f}"


def rank_identities(
    snapshot: Snapshot, entries: np.ndarray, distances: np.ndarray, *, top: int
) -> tuple[Candidate, ...]:
    """The `top` nearest identities of some entries, int64 [n], at cosine distances [n]."""
    order = distances.argsort(kind="stable")
    owners = snapshot.owners[entries[order]]
    # np.unique returns the first, that is nearest, entry of each identity.
    _, first = np.unique(owners, return_index=True)
    return tuple(
        Candidate(
            snapshot.names[snapshot.owners[entries[index]]],
            max(float(distances[index]), 0.0),
            snapshot.sources[entries[index]],
        )
        for index in order[np.sort(first)[:top]]
    )


def decide(candidates: tuple[Candidate, ...], threshold: float | None) -> Answer:
    """Whether the nearest candidate is near enough."""
    if threshold is None:
        return Answer(None, candidates)
    return Answer(bool(candidates) and candidates[0].distance <= threshold, candidates)


def query(
    snapshot: Snapshot, embedding: np.ndarray, *, top: int, threshold: float | None
) -> Answer:
    """Compare an embedding [D] with all entries."""
    distances = 1 - snapshot.embeddings @ embedding  # [N]
    entries = np.arange(len(distances))
    return decide(rank_identities(snapshot, entries, distances, top=top), threshold)
