"""IDF1 of tracks (Ristani et al., "Performance Measures and a Data Set for Multi-Target,
Multi-Camera Tracking", 2016).
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from scipy.optimize import linear_sum_assignment

Row = tuple[int, int, float, float, float, float]


def idf1(truth: Iterable[Row], found: Iterable[Row], *, min_overlap: float = 0.5) -> float:
    """2 IDTP / (number of true boxes + number of found boxes).

    IDTP is the number of boxes that are matched (intersection over union) under the assignment of
    found tracks to true tracks that maximizes it.

    Args:
        truth, found: rows of frame, track, left, top, right, bottom.
    """
    frames: tuple[dict[int, list[Row]], dict[int, list[Row]]] = defaultdict(list), defaultdict(list)
    counts = [0, 0]
    for side, rows in enumerate((truth, found)):
        for row in rows:
            frames[side][row[0]].append(row)
            counts[side] += 1
    matches: defaultdict[tuple[int, int], int] = defaultdict(int)
    for frame, boxes in frames[0].items():
        for a in boxes:
            for b in frames[1].get(frame, []):
                matches[a[1], b[1]] += overlap(a[2:], b[2:]) >= min_overlap
    true_ids, found_ids = (sorted({pair[side] for pair in matches}) for side in (0, 1))
    table = np.array([[matches.get((a, b), 0) for b in found_ids] for a in true_ids])
    if not table.size:
        return 0.0
    chosen = table[linear_sum_assignment(table, maximize=True)].sum()
    return float(2 * chosen / sum(counts))


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes: left, top, right, bottom."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return common / (areas - common)
