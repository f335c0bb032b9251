"""Ranks of the true matches in torch: what `ranking.count_ranks_python` counts, in blocks on any device.

Letters: b queries of a block, G gallery entries, M matches of the block, K entries no farther than the
farthest match.
"""

import numpy as np
import torch

from ..matches import Matches


def count_ranks_torch(distances: torch.Tensor, matches: Matches) -> np.ndarray:
    """Ranks of all matches, int64 [M], rising within a query; overwrites left-out `distances` [b, G]."""
    device = distances.device
    starts = torch.from_numpy(matches.starts).to(device)
    counts = starts.diff()
    row_of_match = torch.from_numpy(matches.queries).to(device).repeat_interleave(counts)
    columns = torch.from_numpy(matches.columns).to(device)
    left_counts = torch.from_numpy(np.diff(matches.left_starts)).to(device)
    left_rows = torch.from_numpy(matches.queries).to(device).repeat_interleave(left_counts)
    distances[left_rows, torch.from_numpy(matches.left_columns).to(device)] = float(
        "nan"
    )  # no comparison holds
    distances[:, torch.from_numpy(matches.junk).to(device)] = float("nan")

    farthest = distances.new_full((len(distances),), -float("inf"))
    farthest.scatter_reduce_(0, row_of_match, distances[row_of_match, columns], "amax")
    is_match = torch.zeros_like(distances, dtype=torch.bool)
    is_match[row_of_match, columns] = True

    rows, near = torch.nonzero(
        distances <= farthest[:, None], as_tuple=True
    )  # [K] each, rows rising
    order = sort_within_rows(rows, distances[rows, near])
    hits = torch.nonzero(is_match[rows[order], near[order]]).flatten()
    row_starts = torch.searchsorted(rows, torch.arange(len(distances), device=device))
    return (hits - row_starts[rows[order[hits]]]).cpu().numpy()


def sort_within_rows(rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The order [K] that sorts by row (already rising), then by value; equal values keep their order."""
    order = torch.argsort(values, stable=True)
    return order[torch.argsort(rows[order], stable=True)]
