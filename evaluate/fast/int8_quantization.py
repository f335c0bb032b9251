"""8-bit quantization of features: approximate distances with a known error bound.

Products of bytes are about four times as fast as float32 products, and exact. The nearest and
farthest items are therefore searched in 8-bit codes. Candidates that the error bound cannot exclude
are then measured in float32, so the results are those of float32.

Let u_i = scales[i] x_i be the vectors whose distances are needed (see `tiles.FeatureMatrix`) and c
their mean:
    v_i = u_i - c                           differences, and so distances, stay the same
    v_i = scales[i] values[i] + error_i     values: integers from -127 to 127
    D[i, j] = squares[i] + squares[j] - 2 <v_i, v_j>
By the Cauchy-Schwarz inequality, <v_i, v_j> and the product of the codes differ by at most
    |error_i| |v_j| + |scales[i] values[i]| |error_j|
Letters: N items, D dimensions.
"""

from dataclasses import dataclass

import torch

from .tiles import FeatureMatrix

# Without -128, both signs have the same range.
MAX_CODE = 127
# Products of longer codes could overflow 32 bits.
MAX_DIMS = (2**31 - 1) // MAX_CODE**2
# Limits the temporary memory.
ROWS_AT_ONCE = 512
# In addition to one byte per dimension.
BYTES_PER_ITEM = 16


@dataclass(frozen=True, eq=False)
class Codes:
    """Items as small integers.

    Up to rounding, the distance of items i and j is within
        errors[i] * reaches[j] + reaches[i] * errors[j] + slack
    of
        squares[i] + squares[j] - 2 scales[i] scales[j] <values[i], values[j]>

    Attributes:
        values: int8 [N, D].
        scales: float32 [N].
        squares: float32 [N].
        errors: float32 [N], |error_i|.
        reaches: float32 [N], twice the larger of |v_i| and the norm of what its code represents.
        slack: more than the float32 rounding of all terms and of the measured distances.
    """

    values: torch.Tensor
    scales: torch.Tensor
    squares: torch.Tensor
    errors: torch.Tensor
    reaches: torch.Tensor
    slack: float


def create_codes(features: FeatureMatrix) -> Codes:
    """Codes of all items, each item with its own scale."""
    num, dims = features.num_items, features.dims
    values = torch.empty(num, dims, dtype=torch.int8)
    scales, squares, errors, reaches = (torch.empty(num) for _ in range(4))
    spans = list(features.spans(0, num, ROWS_AT_ONCE))
    mean = torch.zeros(dims)
    for first, last in spans:
        mean += features.scales[first:last] @ features.block(first, last)
    mean /= num
    for first, last in spans:
        rows = slice(first, last)
        vectors = features.block(first, last) * features.scales[rows, None]
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        vectors -= mean
        largest = vectors.abs().amax(dim=1)
        scales[rows] = largest.clamp_(min=torch.finfo(torch.float32).tiny) / MAX_CODE
        rounded = (vectors / scales[rows, None]).round_().clamp_(-MAX_CODE, MAX_CODE)
        values[rows] = rounded
        rounded *= scales[rows, None]
        norms = torch.linalg.vector_norm(vectors, dim=1)
        # A row of zeros has the distances of a unit vector; its square contains the difference.
        missing = features.constant / 2 + features.squares[rows] - lengths.square()
        squares[rows] = norms.square() + missing
        reaches[rows] = 2 * torch.maximum(norms, torch.linalg.vector_norm(rounded, dim=1))
        errors[rows] = torch.linalg.vector_norm(vectors - rounded, dim=1)
    # Measured distances are rounded to multiples of the resolution.
    slack = features.rounding + features.resolution
    return Codes(values, scales, squares, errors, reaches, slack)
