"""Checks of checkpoint contents: checksums, finite values, and states that fit their optimizer."""

import copy
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

MAX_CLASSES = 10_000_000
# Fields of a checkpoint: type, and its name in messages.
_FIELDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "num_classes": (int, "a whole number"),
    "classes": ((list, tuple), "a list"),
    "model": (Mapping, "tensors by name"),
    "trained": (Mapping, "tensors by name"),
    "optimizers": ((list, tuple), "a list"),
    "progress": (Mapping, "numbers by name"),
    "missing_weights": ((list, tuple), "a list"),
}
# State tensors per parameter that a resumed optimizer needs.
_REQUIRED_STATE = {
    "Adam": ("step", "exp_avg", "exp_avg_sq"),
    "AdamW": ("step", "exp_avg", "exp_avg_sq"),
}


def copy_to_cpu(content: Any) -> Any:
    """The content with all tensors on the CPU; only this copy waits for a GPU."""
    if isinstance(content, Tensor):
        return content.detach().cpu()
    if isinstance(content, dict):
        # A copy keeps the type and the version numbers that torch attaches to state dicts.
        copied = copy.copy(content)
        copied.update((key, copy_to_cpu(value)) for key, value in content.items())
        return copied
    if isinstance(content, (list, tuple)):
        return type(content)(copy_to_cpu(value) for value in content)
    return content


def named_tensors(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """(path, tensor) of every tensor in nested containers, such as "optimizers/0/state/1/step"."""
    if isinstance(content, Tensor):
        yield prefix, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from named_tensors(value, f"{prefix}/{key}" if prefix else str(key))
    elif isinstance(content, (list, tuple)):
        for index, value in enumerate(content):
            yield from named_tensors(value, f"{prefix}/{index}" if prefix else str(index))


def checksum(tensor: Tensor) -> int:
    """CRC-32 of the values of a CPU tensor in row-major order."""
    values = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return zlib.crc32(values.numpy().tobytes())


def compute_checksums(content: Any) -> dict[str, int]:
    """The checksum of every tensor, by path."""
    return {path: checksum(tensor) for path, tensor in named_tensors(content)}


def verify_content(content: Mapping[str, Any], source: object) -> None:
    """Check the fields of one of our checkpoints, and its checksums.

    Raises:
        ValueError: a field has another type than we write, or a tensor was changed.
    """
    for name, (kind, description) in _FIELDS.items():
        if name in content and not isinstance(content[name], kind):
            found = type(content[name]).__name__
            raise ValueError(f"{source} is damaged: {name} must be {description}, found {found}")
    for name in ("model", "trained"):
        items = content.get(name, {}).items()
        if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in items):
            raise ValueError(f"{source} is damaged: {name} must be tensors by name")
    num_classes, classes = content.get("num_classes", 1), content.get("classes")
    if not 1 <= num_classes <= MAX_CLASSES or isinstance(num_classes, bool):
        raise ValueError(f"{source} is damaged: num_classes must be 1 to {MAX_CLASSES:,}")
    if classes and len(classes) != num_classes:
        raise ValueError(f"{source} is damaged: {len(classes)} classes, but another num_classes")
    for identity in classes or ():
        if not isinstance(identity, (list, tuple)) or len(identity) != 2:
            raise ValueError(f"{source} is damaged: a class is not (dataset, identity)")
    verify_checksums(content, source)


def verify_checksums(content: Mapping[str, Any], source: object) -> None:
    """Compare the tensors with the checksums in the content; older files have none.

    Raises:
        ValueError: a tensor differs from what was saved.
    """
    recorded = content.get("checksums")
    if recorded is None:
        return
    if not isinstance(recorded, Mapping) or any(
        type(value) is not int for value in recorded.values()
    ):
        raise ValueError(f"{source} is damaged: checksums must be whole numbers by name")
    found = {key: value for key, value in content.items() if key != "checksums"}
    for path, tensor in named_tensors(found):
        if recorded.get(path) != checksum(tensor):
            raise ValueError(f"{source} is damaged: {path} differs from what was saved")
    missing = set(recorded) - {path for path, _ in named_tensors(found)}
    if missing:
        raise ValueError(f"{source} is damaged: {min(map(str, missing))} is missing")


def find_non_finite(content: Mapping[str, Any]) -> str:
    """The path of the first weight or optimizer state with NaN or infinity; "" if there is none."""
    for part in ("model", "trained", "optimizers"):
        for path, tensor in named_tensors(content.get(part, {}), part):
            if tensor.is_floating_point() and not tensor.isfinite().all():
                return path
    return ""


def check_dtypes(module: nn.Module, state: Any) -> None:
    """Compare the dtypes of a saved state with those of a module, which would convert the values.

    Raises:
        ValueError: a tensor has another dtype.
    """
    for name, own in module.state_dict().items():
        saved = state.get(name)
        if isinstance(own, Tensor) and isinstance(saved, Tensor) and saved.dtype != own.dtype:
            raise ValueError(f"{name} of type {saved.dtype}, this run needs {own.dtype}")


def check_optimizer_state(optimizer: torch.optim.Optimizer, state: Any) -> None:
    """Compare a saved state with the optimizer before it is loaded.

    Optimizers do not check shapes; their fused kernels would write out of bounds.

    Raises:
        ValueError: another kind of optimizer, other parameters, or tensors of other shapes.
    """
    groups, saved_groups = optimizer.param_groups, state["param_groups"]
    if len(groups) != len(saved_groups):
        raise ValueError(f"{len(saved_groups)} parameter groups, this run has {len(groups)}")
    for group, saved in zip(groups, saved_groups, strict=True):
        missing = sorted(set(group) - set(saved))
        if missing:
            raise ValueError(f"the state of another optimizer (without {missing[0]})")
        if len(group["params"]) != len(saved["params"]):
            raise ValueError(
                f"{len(saved['params'])} parameters in a group, this run has {len(group['params'])}"
            )
        for parameter, index in zip(group["params"], saved["params"], strict=True):
            _check_parameter_state(type(optimizer).__name__, parameter, state["state"].get(index))


def _check_parameter_state(kind: str, parameter: Tensor, state: Any) -> None:
    if state is None:
        return
    for name in _REQUIRED_STATE.get(kind, ()):
        if name not in state:
            raise ValueError(f"an optimizer state without {name}")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            continue
        expected = torch.Size() if name == "step" else parameter.shape
        if value.shape != expected:
            raise ValueError(
                f"optimizer state {name} of shape {tuple(value.shape)}, "
                f"this run needs {tuple(expected)}"
            )
        if value.is_floating_point() != parameter.is_floating_point():
            raise ValueError(f"optimizer state {name} of type {value.dtype}")
