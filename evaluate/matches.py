"""Which gallery entries count as right, and which are left out, for every query.

Letters: Q queries, G gallery entries, V valid queries (with at least one match), M matches of them all.
"""

from typing import NamedTuple

import numpy as np


class Matches(NamedTuple):
    """Sparse rows, one a valid query: its matches are `columns[starts[v]:starts[v + 1]]`, in order."""

    queries: np.ndarray  # int64 [V]      rows of the distance matrix
    starts: np.ndarray  # int64 [V + 1]
    columns: np.ndarray  # int64 [M]      same identity, another camera
    left_starts: np.ndarray  # int64 [V + 1]
    left_columns: np.ndarray  # int64      same identity, same camera: left out for this query
    junk: np.ndarray  # int64             pid -1: left out for every query

    def take(self, numbers: np.ndarray) -> tuple["Matches", np.ndarray]:
        """The matches of some valid queries, int64 [b], as those of a matrix with one row each; their places in `columns`."""
        starts, places = take_ragged(self.starts, numbers)
        left_starts, left_places = take_ragged(self.left_starts, numbers)
        part = Matches(
            np.arange(len(numbers)),
            starts,
            self.columns[places],
            left_starts,
            self.left_columns[left_places],
            self.junk,
        )
        return part, places


def take_ragged(starts: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of several lengths that lie one behind another: starts [b + 1] of those taken, and where they lie now."""
    lengths = starts[numbers + 1] - starts[numbers]
    taken = np.concatenate(([0], np.cumsum(lengths)))
    return taken, np.arange(taken[-1]) + np.repeat(starts[numbers] - taken[:-1], lengths)


def find_matches(query_pids, gallery_pids, query_camids, gallery_camids) -> Matches:
    """Matches by the field's rule: entries of the own identity and camera are left out, and junk (pid -1).

    Args: int64 arrays [Q], [G], [Q], [G]. Raises ValueError when no query has a match.
    """
    order = np.argsort(gallery_pids, kind="stable")
    sorted_pids = gallery_pids[order]
    low = np.searchsorted(sorted_pids, query_pids, side="left")
    high = np.searchsorted(sorted_pids, query_pids, side="right")
    counts = np.where(query_pids == -1, 0, high - low)

    owner = np.repeat(np.arange(len(query_pids)), counts)
    position = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = order[np.repeat(low, counts) + position]
    same_camera = gallery_camids[columns] == query_camids[owner]

    num_matches = np.bincount(owner[~same_camera], minlength=len(query_pids))
    num_left_out = np.bincount(owner[same_camera], minlength=len(query_pids))
    valid = num_matches > 0
    if not valid.any():
        raise ValueError(
            f"None of the {len(query_pids)} queries has a match in the gallery under another camera: check "
            "that the identities of both sets are numbered alike and that the cameras differ (without "
            "cameras: pass ids that differ)."
        )
    return Matches(
        np.flatnonzero(valid),
        np.concatenate(([0], np.cumsum(num_matches[valid]))),
        columns[~same_camera],
        np.concatenate(([0], np.cumsum(num_left_out[valid]))),
        columns[same_camera & valid[owner]],
        np.flatnonzero(gallery_pids == -1),
    )
