"""Labeled embeddings on a circle, whose distances can be computed by hand."""

import numpy as np
import torch
from ember_reid.tools.report.retrieval_analysis import Labeled


def on_circle(degrees) -> torch.Tensor:
    """Unit vectors [N, 2] at the given angles."""
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def labeled(degrees, pids, camids) -> Labeled:
    return Labeled(on_circle(degrees), np.array(pids), np.array(camids))


def noisy_city() -> tuple[Labeled, Labeled]:
    """Eight identities, 40 degrees apart, in three cameras; the last query has a wrong label."""
    rng = np.random.default_rng(3)
    pids = np.repeat(np.arange(8), 3)
    camids = np.tile(np.arange(3), 8)
    query = Labeled(on_circle(pids * 40 + rng.normal(0, 3, 24)), pids.copy(), camids)
    query.pids[-1] = 6
    gallery = Labeled(
        on_circle(np.tile(pids, 2) * 40 + rng.normal(0, 3, 48)),
        np.tile(pids, 2),
        np.tile(camids, 2),
    )
    return query, gallery
