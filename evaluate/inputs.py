"""The inputs of an evaluation and their checks; every error is a one-sentence `ValueError`.

Letters: Q queries, G gallery entries, N items, D feature dimensions.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

# A longer CMC curve is a mistake and would only cost memory.
MAX_RANK_LIMIT = 1_000_000
# Maximum characters of a value in an error message.
SHOWN = 60


class QueryGallery(NamedTuple):
    """Query and gallery in the order of the arguments of `evaluate_features`: pass `*sets`.

    Attributes:
        query, gallery: features [Q, D], [G, D].
        query_pids, gallery_pids: identities, int [Q], [G].
        query_camids, gallery_camids: cameras, int [Q], [G].
    """

    query: Any
    gallery: Any
    query_pids: Any
    gallery_pids: Any
    query_camids: Any
    gallery_camids: Any

    @classmethod
    def split(cls, features, pids, camids, num_query: int) -> "QueryGallery":
        """Rows of all items [N], queries first, as query and gallery."""
        columns = (features, pids, camids)
        return cls(*(part for rows in columns for part in (rows[:num_query], rows[num_query:])))

    def ignore_cameras(self) -> "QueryGallery":
        """The same data with cameras that exclude nothing: 0 for queries, 1 for the gallery."""
        return self._replace(
            query_camids=self.query_camids * 0, gallery_camids=self.gallery_camids * 0 + 1
        )

    @property
    def ids(self) -> tuple[Any, Any, Any, Any]:
        """(query_pids, gallery_pids, query_camids, gallery_camids)."""
        return self.query_pids, self.gallery_pids, self.query_camids, self.gallery_camids


@dataclass(frozen=True)
class Rerank:
    """Parameters of k-reciprocal re-ranking, with the published defaults.

    Attributes:
        k1: number of nearest neighbors that may become reciprocal neighbors.
        k2: number of nearest neighbors over which weights are averaged, the item itself included.
        lambda_value: weight of the original distance, in [0, 1].
    """

    k1: int = 20
    k2: int = 6
    lambda_value: float = 0.3


class Ids(NamedTuple):
    """Identities and cameras of query and gallery, checked: int64 [Q], [G], [Q], [G]."""

    query_pids: np.ndarray
    gallery_pids: np.ndarray
    query_camids: np.ndarray
    gallery_camids: np.ndarray

    def to(self, device: torch.device) -> tuple[torch.Tensor, ...]:
        """The four arrays as tensors on a device."""
        return tuple(torch.from_numpy(values).to(device) for values in self)


def shown(value: object) -> str:
    """The repr of a value, truncated, for an error message."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def as_array(values, name: str) -> np.ndarray:
    """A numpy array of a torch tensor (copied from the GPU if necessary) or of nested lists."""
    if isinstance(values, torch.Tensor):
        values = values.detach()
        return (values.float() if values.dtype == torch.bfloat16 else values).cpu().numpy()
    try:
        array = np.asarray(values)
    # The rows have different lengths.
    except ValueError:
        array = np.empty(0, object)
    if array.dtype == object:
        raise ValueError(
            f"{name} must be an array of numbers, found a ragged or mixed {type(values).__name__}."
        )
    return array


def check_one_id_array(ids, name: str, length: int) -> np.ndarray:
    """Identities or cameras as int64 [length]; strings and fractions are refused."""
    array = as_array(ids, name)
    if array.ndim == 1 and array.size == 0 and length == 0:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be integers, found {array.dtype}; number the identities or cameras first."
        )
    if array.shape != (length,):
        raise ValueError(
            f"{name} must have shape ({length},), one entry per row, found {array.shape}."
        )
    if array.dtype == np.uint64 and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit into 64-bit signed integers, found {int(array.max())}.")
    return np.ascontiguousarray(array, dtype=np.int64)


def check_ids(
    query_pids, gallery_pids, query_camids, gallery_camids, num_query: int, num_gallery: int
) -> Ids:
    """The four arrays of identities and cameras as int64."""
    return Ids(
        check_one_id_array(query_pids, "query_pids", num_query),
        check_one_id_array(gallery_pids, "gallery_pids", num_gallery),
        check_one_id_array(query_camids, "query_camids", num_query),
        check_one_id_array(gallery_camids, "gallery_camids", num_gallery),
    )


def check_distances(distances) -> np.ndarray:
    """Distances [Q, G] as float32 or float64; float16 is widened, which is exact.

    NaN and infinity are found later, when the values are read anyway.
    """
    array = as_array(distances, "distances")
    if array.ndim != 2:
        raise ValueError(
            f"distances must be a matrix [queries, gallery], found shape {array.shape}."
        )
    if array.dtype.kind != "f":
        raise ValueError(f"distances must be floating point numbers, found {array.dtype}.")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    check_not_empty(*array.shape)
    return array


def check_not_empty(num_query: int, num_gallery: int) -> None:
    """Raise ValueError if there are no queries or no gallery entries."""
    for name, count in (("query", num_query), ("gallery", num_gallery)):
        if count == 0:
            raise ValueError(f"The {name} set is empty: there is nothing to rank.")


def check_features(features, name: str) -> torch.Tensor:
    """Features [N, D] as float32 on their device; NaN and infinity are refused with their row."""
    if isinstance(features, torch.Tensor):
        tensor = features.detach()
    else:
        tensor = _tensor_from_array(features, name)
    if tensor.ndim != 2:
        raise ValueError(
            f"{name} features must be a matrix [images, dimensions], "
            f"found shape {tuple(tensor.shape)}."
        )
    if not tensor.is_floating_point():
        raise ValueError(f"{name} features must be floating point numbers, found {tensor.dtype}.")
    if tensor.shape[1] == 0:
        raise ValueError(f"{name} features have 0 dimensions and cannot be compared.")
    tensor = tensor.float()
    finite = torch.isfinite(tensor.sum(dim=1))
    if not bool(finite.all()):
        # The sum of a row may overflow although every entry is finite.
        for row in torch.nonzero(~finite).flatten().tolist():
            if not bool(torch.isfinite(tensor[row]).all()):
                raise ValueError(
                    f"{name} features contain NaN or infinity, first in row {row}: "
                    "their distances are not defined."
                )
    return tensor


def _tensor_from_array(features, name: str) -> torch.Tensor:
    array = as_array(features, f"{name} features")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} features must be floating point numbers, found {array.dtype}.")
    # torch warns about read-only arrays (memory maps) and refuses negative strides (a[::-1]).
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def check_feature_pair(query, gallery) -> tuple[torch.Tensor, torch.Tensor]:
    """Query and gallery features as float32 [Q, D], [G, D] on one device, finite, not empty."""
    query, gallery = check_features(query, "query"), check_features(gallery, "gallery")
    check_not_empty(len(query), len(gallery))
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            "query and gallery features must have the same dimensions, found "
            f"{query.shape[1]} and {gallery.shape[1]}."
        )
    if query.device != gallery.device:
        raise ValueError(
            "query and gallery features must be on one device, "
            f"found {query.device} and {gallery.device}."
        )
    return query, gallery


def check_choice(value: str, name: str, choices: Collection[str]) -> None:
    """Raise ValueError for an unknown name; the message lists the known ones."""
    if value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(map(str, choices))}, found {shown(value)}."
        )


def check_positive_int(value, name: str, *, most: int | None = None) -> int:
    """A whole number of at least 1 and at most `most`."""
    is_int = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_int or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, found {shown(value)}.")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, found {shown(value)}.")
    return int(value)


def check_max_rank(value) -> int:
    """The length of a CMC curve."""
    return check_positive_int(value, "max_rank", most=MAX_RANK_LIMIT)


def check_fraction(value, name: str) -> float:
    """A number in [0, 1]."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number between 0 and 1, found {shown(value)}.")
    return float(value)


def check_rates(rates) -> tuple[float, ...]:
    """At least one number above 0 and at most 1."""
    rates = tuple(rates)
    if not rates or not all(is_number(rate) and 0 < rate <= 1 for rate in rates):
        raise ValueError(f"Rates must be numbers above 0 and at most 1, found {shown(rates)}.")
    return rates


def check_rerank(rerank) -> Rerank:
    """Valid parameters of re-ranking. With k1 beyond the number of items, all are neighbors."""
    if not isinstance(rerank, Rerank):
        raise ValueError(
            f"rerank must be None or Rerank(k1, k2, lambda_value), found {shown(rerank)}."
        )
    k1, k2 = check_positive_int(rerank.k1, "k1"), check_positive_int(rerank.k2, "k2")
    if k2 > k1 + 1:
        raise ValueError(
            "k2 must be at most k1 + 1, the number of neighbors that are kept, "
            f"found k2 {k2} and k1 {k1}."
        )
    return Rerank(k1, k2, check_fraction(rerank.lambda_value, "lambda_value"))


def check_budget(memory_gib) -> None:
    """A memory budget in GiB: None (no limit) or a finite number above zero."""
    if memory_gib is None:
        return
    if not is_number(memory_gib):
        raise ValueError(f"memory_gib must be a number of GiB or None, found {shown(memory_gib)}.")
    if not (memory_gib > 0 and math.isfinite(memory_gib)):
        raise ValueError(
            f"memory_gib must be above zero, found {shown(memory_gib)}; None sets no limit."
        )


def is_number(value: object) -> bool:
    """Whether a value is a real number; True and False are not."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
