"""Weight files: read safely, matched by name and shape, reported in full."""

import codecs
import logging
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from ember_reid.modeling.convert import Converted, convert_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

logger = logging.getLogger("ember.weights")

# Configuration keys that change what a model computes without changing the names or shapes of its weights.
SWITCHES = (
    "MODEL.BACKBONE.LAST_STRIDE",
    "MODEL.BACKBONE.LAST_DILATION",
    "MODEL.BACKBONE.STEM_RELU",
    "MODEL.BACKBONE.STEM_POOL",
    "MODEL.BACKBONE.LAST_RELU",
    "MODEL.POOL.NAME",
    "TEST.NECK_FEAT",
    "INPUT.SIZE_TEST",
    "INPUT.INTERPOLATION",
    "INPUT.PIXEL_MEAN",
    "INPUT.PIXEL_STD",
)

_WRAPPERS = ("model", "state_dict", "model_state_dict", "net", "network")


# Peers leave numpy numbers and arrays in their files (a score beside the weights); these build just that.
_numpy = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
_NUMPY = [
    (_numpy.scalar, "numpy.core.multiarray.scalar"),
    (_numpy.scalar, "numpy._core.multiarray.scalar"),
    (_numpy._reconstruct, "numpy.core.multiarray._reconstruct"),
    (_numpy._reconstruct, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    codecs.encode,
    *{
        type(np.dtype(kind))
        for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
    },
]


class LoadReport(NamedTuple):
    """What became of the tensors of a weight file, by name in the model (`unexpected`: in the file).

    Attributes:
        loaded: copied into the model.
        missing: the model has them, the file does not.
        unexpected: the file has them, the model does not.
        mismatched: both have them, in different shapes.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    def __str__(self) -> str:
        counts = f"{len(self.loaded)} tensors fit"
        parts = [
            f"{len(names)} {what} ({_shorten(names)})"
            for what, names in (
                ("missing", self.missing),
                ("unexpected", self.unexpected),
                ("of another shape", self.mismatched),
            )
            if names
        ]
        return ", ".join([counts, *parts])


def _shorten(names: tuple[str, ...], limit: int = 4) -> str:
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def read_checkpoint(path: str | Path) -> Any:
    """The content of a file of torch.save or safetensors, on the CPU, without executing anything.

    The content decides which of the two it is, not the name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of torch, a broken one, or one with more than tensors and plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weight file {path} does not exist")
    if is_safetensors(path):
        return _read_safetensors(path)
    try:
        # An open file, because torch.load decides by the name whether a path is a safetensors file.
        with (
            path.open("rb") as file,
            torch.serialization.safe_globals(_NUMPY),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = (
            str(error).splitlines()[-1]
            if "Unsupported" not in str(error)
            else _unsupported(str(error))
        )
        raise ValueError(
            f"weight file {path} is not read, because it holds more than tensors and plain containers "
            f"and loading it would execute code: {reason}"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or ["it ends early"])[0]
        raise ValueError(
            f"weight file {path} is broken or no file of torch ({path.stat().st_size} bytes): {reason}"
        ) from error


def is_safetensors(path: Path) -> bool:
    """Whether a file has the safetensors layout: the header's length (8 bytes) and a JSON header."""
    with path.open("rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and 2 <= length <= path.stat().st_size - 8


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"weight file {path} is a damaged safetensors file: {error}") from error


def _unsupported(message: str) -> str:
    return next(line.strip() for line in message.splitlines() if "Unsupported" in line)


def find_state_dict(content: Any, path: str | Path) -> dict[str, Tensor]:
    """The tensors by name inside a checkpoint: wrappers are opened, DataParallel's "module." is taken off.

    Raises:
        ValueError: there is no state dict.
    """
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        inner = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = _tensors(content)
    if not tensors:
        names = _shorten(tuple(map(str, content))) if isinstance(content, Mapping) else ""
        found = f"the keys {names}" if names else type(content).__name__
        raise ValueError(f"weight file {path} holds no state dict; found {found}")
    return {k.removeprefix("module."): v for k, v in tensors.items()}


def _tensors(content: Any) -> dict[str, Tensor]:
    """The tensors of a mapping, numpy arrays turned into tensors."""
    if not isinstance(content, Mapping):
        return {}
    arrays = {
        k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in content.items()
    }
    return {k: v for k, v in arrays.items() if isinstance(v, Tensor)}


def match_state_dict(model: nn.Module, tensors: Mapping[str, Tensor]) -> LoadReport:
    """What loading `tensors` into `model` would do. Batch norm's counters may be missing."""
    own = model.state_dict()
    shared = [k for k in own if k in tensors]
    return LoadReport(
        loaded=tuple(k for k in shared if own[k].shape == tensors[k].shape),
        missing=tuple(k for k in own if k not in tensors and not k.endswith("num_batches_tracked")),
        unexpected=tuple(k for k in tensors if k not in own),
        mismatched=tuple(k for k in shared if own[k].shape != tensors[k].shape),
    )


def _is_classifier(name: str) -> bool:
    return not {"classifier", "fc"}.isdisjoint(
        name.split(".")
    )  # fc: of ImageNet, left in by IBN-Net


def load_weights(model: nn.Module, path: str | Path, *, layout: str = "auto") -> LoadReport:
    """Loads a checkpoint of ours or of a peer (see modeling/convert.py) into `model`.

    Classifiers may be missing, unexpected or of another shape (other identities): they are left as they are.
    Switches and preprocessing that the file asks for, or that it was trained with, are compared with those of
    the model, and differences are logged as warnings.

    Args:
        model: from build_model.
        path: the file.
        layout: "auto", or a key of modeling.convert.LAYOUTS.

    Returns:
        What was loaded, missing, unexpected, mismatched; also logged.

    Raises:
        FileNotFoundError, ValueError: see read_checkpoint; also when anything but a classifier does not fit.
            The model is unchanged then.
    """
    content = read_checkpoint(path)
    converted = convert_state_dict(
        find_state_dict(content, path), layout=layout, wanted=model.state_dict().keys()
    )
    tensors = converted.tensors
    report = match_state_dict(model, tensors)
    wrong = [
        n for n in report.missing + report.unexpected + report.mismatched if not _is_classifier(n)
    ]
    if wrong or not report.loaded:
        raise ValueError(
            f"weight file {path} is of another architecture{_describe(converted)}: {report}"
        )
    model.load_state_dict({k: tensors[k] for k in report.loaded}, strict=False)
    wanted = converted.switches or trained_with(content)
    for key, value, own in differing_switches(wanted, getattr(model, "switches", {})):
        logger.warning("%s was made with %s %s, the configuration says %s", path, key, value, own)
    log = logger.info if len(report.loaded) == len(model.state_dict()) else logger.warning
    log("%s%s: %s", path, f" (layout: {converted.layout})" if converted.layout else "", report)
    return report


def _describe(converted: Converted) -> str:
    names = converted.tensors
    if converted.layout:
        switches = ", ".join(f"{key} {value}" for key, value in converted.switches.items())
        return f" (it looks like {converted.layout}'s, which wants {switches})"
    if "fc.weight" in names or any(name.startswith("features.") for name in names):
        return " (it looks like ImageNet weights of a backbone, which MODEL.BACKBONE.WEIGHTS takes)"
    return ""


def trained_with(content: Any) -> dict[str, Any]:
    """The switches in the configuration that one of our checkpoints carries; empty for other files."""
    text = content.get("config") if isinstance(content, Mapping) else None
    if not isinstance(text, str):
        return {}
    tree = yaml.safe_load(text)
    found = {}
    for key in SWITCHES:
        node = tree
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        if node is not None:
            found[key] = tuple(node) if isinstance(node, list) else node
    return found


def differing_switches(
    wanted: Mapping[str, Any], own: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """(key, wanted, own) for each switch that both name and that differ; numbers may differ by 1e-3."""
    differing = []
    for key, value in wanted.items():
        if key not in own or own[key] == value:
            continue
        if isinstance(value, tuple) and len(value) == len(own[key]):
            if all(abs(a - b) <= 1e-3 for a, b in zip(value, own[key], strict=True)):
                continue
        differing.append((key, value, own[key]))
    return differing
