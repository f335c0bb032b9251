"""Ranks of the true matches in torch, on any device.

Letters: b queries of a block, G gallery entries, M matches of the block, K entries that are at
most as far away as the farthest match of their query.
"""

import numpy as np
import torch

from ..ranking import Matches


def count_ranks_torch(distances: torch.Tensor, matches: Matches) -> np.ndarray:
    """Ranks of all matches, int64 [M], as `ranking.count_ranks_python` returns them.

    Args:
        distances: [b, G]; excluded entries are overwritten.
    """
    device = distances.device
    queries = torch.from_numpy(matches.queries).to(device)
    match_rows = queries.repeat_interleave(torch.from_numpy(np.diff(matches.starts)).to(device))
    columns = torch.from_numpy(matches.columns).to(device)
    excluded_counts = torch.from_numpy(np.diff(matches.excluded_starts)).to(device)
    excluded_rows = queries.repeat_interleave(excluded_counts)
    # No comparison with NaN is true, so these entries are never counted.
    distances[excluded_rows, torch.from_numpy(matches.excluded_columns).to(device)] = float("nan")
    distances[:, torch.from_numpy(matches.junk).to(device)] = float("nan")

    farthest = distances.new_full((len(distances),), -float("inf"))
    farthest.scatter_reduce_(0, match_rows, distances[match_rows, columns], "amax")
    is_match = torch.zeros_like(distances, dtype=torch.bool)
    is_match[match_rows, columns] = True

    # [K] each; rows are rising.
    rows, near = torch.nonzero(distances <= farthest[:, None], as_tuple=True)
    order = sort_within_rows(rows, distances[rows, near])
    hits = torch.nonzero(is_match[rows[order], near[order]]).flatten()
    first_of_row = torch.searchsorted(rows, torch.arange(len(distances), device=device))
    return (hits - first_of_row[rows[order[hits]]]).cpu().numpy()


def sort_within_rows(rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The order [K] by row (already rising), then by value; equal values keep their order."""
    order = torch.argsort(values, stable=True)
    return order[torch.argsort(rows[order], stable=True)]
