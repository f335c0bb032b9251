"""Input checks shared by the evaluation functions: every mistake becomes one sentence in a `ValueError`.

Letters: Q queries, G gallery entries, D feature dimensions.
"""

import math

import numpy as np
import torch


def as_array(values, name: str) -> np.ndarray:
    """A numpy view of a torch tensor (copied from the GPU when it lives there) or of anything array-like."""
    if isinstance(values, torch.Tensor):
        values = values.detach()
        return (values.float() if values.dtype == torch.bfloat16 else values).cpu().numpy()
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        array = np.empty(0, object)
    if array.dtype == object:
        raise ValueError(
            f"{name} must be an array of numbers, found a ragged or mixed {type(values).__name__}."
        )
    return array


def check_ids(ids, name: str, length: int) -> np.ndarray:
    """Identities or cameras as int64 [length]; any integer type will do, strings and fractions will not."""
    array = as_array(ids, name)
    if array.ndim == 1 and array.size == 0 and length == 0:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be integers, found {array.dtype}; number the identities or cameras first."
        )
    if array.shape != (length,):
        raise ValueError(
            f"{name} must have shape ({length},), one entry a row of the data, found {array.shape}."
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def check_distances(distances) -> np.ndarray:
    """Distances [Q, G] as float32 or float64 with contiguous rows; float16 is widened, which is exact."""
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
    """Refuses an evaluation without queries or without a gallery."""
    for name, count in (("query", num_query), ("gallery", num_gallery)):
        if count == 0:
            raise ValueError(f"The {name} set is empty: nothing can be ranked.")


def check_features(features, name: str) -> torch.Tensor:
    """Features [N, D] as a float32 tensor on their device; NaN and infinity are refused with their row."""
    tensor = (
        features.detach()
        if isinstance(features, torch.Tensor)
        else _tensor_from_array(features, name)
    )
    if tensor.ndim != 2:
        raise ValueError(
            f"{name} features must be a matrix [images, dimensions], found shape {tuple(tensor.shape)}."
        )
    if not tensor.is_floating_point():
        raise ValueError(f"{name} features must be floating point numbers, found {tensor.dtype}.")
    if tensor.shape[1] == 0:
        raise ValueError(f"{name} features have 0 dimensions: nothing can be compared.")
    tensor = tensor.float()
    finite = torch.isfinite(tensor.sum(dim=1))
    if not bool(finite.all()):
        for row in (
            torch.nonzero(~finite).flatten().tolist()
        ):  # a sum may overflow where no entry does
            if not bool(torch.isfinite(tensor[row]).all()):
                raise ValueError(
                    f"{name} features hold NaN or infinity, first in row {row}: no distance is defined."
                )
    return tensor


def _tensor_from_array(features, name: str) -> torch.Tensor:
    array = as_array(features, f"{name} features")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} features must be floating point numbers, found {array.dtype}.")
    if not array.flags.writeable or any(
        stride < 0 for stride in array.strides
    ):  # torch warns about the first, refuses
        array = (
            array.copy()
        )  # the second; both happen to arrays from a memory map or a reversed slice
    return torch.from_numpy(array)


def check_choice(value: str, name: str, choices) -> None:
    """Refuses an unknown name and lists the known ones."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, found {value!r}.")


def check_positive_int(value, name: str, minimum: int = 1) -> int:
    """A whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ValueError(f"{name} must be a whole number of at least {minimum}, found {value!r}.")
    return int(value)


def check_fraction(value, name: str) -> float:
    """A number in [0, 1]."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.number)
        or not 0 <= value <= 1
    ):
        raise ValueError(f"{name} must be a number between 0 and 1, found {value!r}.")
    return float(value)


def check_budget(memory_gib) -> None:
    """A memory budget in GiB: None (no limit given) or a finite number above zero."""
    if memory_gib is None:
        return
    if isinstance(memory_gib, bool) or not isinstance(memory_gib, int | float | np.number):
        raise ValueError(f"memory_gib must be a number of GiB or None, found {memory_gib!r}.")
    if not (memory_gib > 0 and math.isfinite(memory_gib)):
        raise ValueError(
            f"memory_gib must be above zero, found {memory_gib!r}; None sets no limit."
        )


def check_feature_pair(query, gallery) -> tuple[torch.Tensor, torch.Tensor]:
    """Query and gallery features as float32 tensors [Q, D], [G, D] on one device, finite and not empty."""
    query, gallery = check_features(query, "query"), check_features(gallery, "gallery")
    check_not_empty(len(query), len(gallery))
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            "query and gallery features must have the same dimensions, found "
            f"{query.shape[1]} and {gallery.shape[1]}."
        )
    if query.device != gallery.device:
        raise ValueError(
            f"query and gallery features must be on one device, found {query.device} and {gallery.device}."
        )
    return query, gallery
