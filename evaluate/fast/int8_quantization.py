"""Eight-bit codes of features: distances to within a known error, by products of whole numbers.

A processor multiplies bytes about four times as fast as float32, and without any rounding. So the nearest and the
farthest items are looked for among the codes, and only those that the error cannot rule out are measured in
float32: the lists that come out are those of float32.

With u_i = scales[i] x_i the vectors between which distances are taken (see `tiles.Rows`) and c their mean:
    v_i = u_i - c                             differences, and with them distances, stay what they are
    v_i = steps[i] values[i] + remainder_i    values: whole numbers from -127 to 127
    D[i, j] = squares[i] + squares[j] - 2 <v_i, v_j>
By the inequality of Cauchy and Schwarz, <v_i, v_j> and the product of what the codes stand for differ by at most
    |remainder_i| |v_j| + |steps[i] values[i]| |remainder_j|.
Letters: N items, D dimensions.
"""

from typing import NamedTuple

import torch

from .tiles import Rows

LARGEST = 127  # of a code; without -128, both signs have the same range
MOST_DIMS = (2**31 - 1) // LARGEST**2  # the product of longer codes could overflow 32 bits
PIECE = 512  # rows encoded at once
BYTES_PER_ITEM = 16  # beside one for each dimension


class Codes(NamedTuple):
    """Items as small whole numbers.

    The distance of items i, j is, up to rounding, squares[i] + squares[j] - 2 steps[i] steps[j] <values[i], values[j]>, give
    or take residuals[i] * reaches[j] + reaches[i] * residuals[j] + slack.
    """

    values: torch.Tensor  # int8 [N, D]
    steps: torch.Tensor  # float32 [N]
    squares: torch.Tensor  # float32 [N]
    residuals: torch.Tensor  # float32 [N]: |remainder|
    reaches: (
        torch.Tensor
    )  # float32 [N]: 2 |v|, or twice the norm of what its code stands for if that is larger
    slack: (
        float  # more than all rounding in float32 adds, here and in the distances that are measured
    )


def create_codes(rows: Rows) -> Codes:
    """Codes of all items, each with a step of its own."""
    num = rows.num_items
    values = torch.empty(num, rows.dims, dtype=torch.int8)
    steps, squares, residuals, reaches = (torch.empty(num) for _ in range(4))
    spans = list(rows.spans(0, num, PIECE))
    mean = (
        sum(rows.scales[first:last] @ rows.block(first, last) for first, last in spans) / num
    )  # [D]
    for first, last in spans:
        item = slice(first, last)
        vectors = rows.block(first, last) * rows.scales[item, None]
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        vectors -= mean
        steps[item] = (
            vectors.abs().amax(dim=1).clamp_(min=torch.finfo(torch.float32).tiny) / LARGEST
        )
        rounded = (vectors / steps[item, None]).round_().clamp_(-LARGEST, LARGEST)
        values[item] = rounded
        rounded *= steps[item, None]
        norms = torch.linalg.vector_norm(vectors, dim=1)
        # a row of zeros is given the distances of a unit vector: the difference goes into its square
        squares[item] = norms.square() + (rows.constant / 2 + rows.squares[item] - lengths.square())
        reaches[item] = 2 * torch.maximum(norms, torch.linalg.vector_norm(rounded, dim=1))
        residuals[item] = torch.linalg.vector_norm(vectors - rounded, dim=1)
    return Codes(values, steps, squares, residuals, reaches, rows.rounding)
