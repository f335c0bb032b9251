"""Reading weight files safely, and matching their tensors with a model by name and shape."""

import codecs
import importlib
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

# Limits of nested containers, which are far above those of any checkpoint.
MAX_DEPTH = 50
MAX_PARTS = 1_000_000
_WRAPPERS = ("model", "state_dict", "model_state_dict", "net", "network", "teacher")


def _numpy_globals() -> list[Any]:
    """Types and functions that unpickling numpy scalars and arrays needs.

    Checkpoints of other programs contain them, for example a score next to the weights.
    """
    package = "numpy._core" if hasattr(np, "_core") else "numpy.core"
    multiarray = importlib.import_module(f"{package}.multiarray")
    kinds = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
    return [
        (multiarray.scalar, "numpy.core.multiarray.scalar"),
        (multiarray.scalar, "numpy._core.multiarray.scalar"),
        (multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
        (multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        codecs.encode,
        *{type(np.dtype(kind)) for kind in kinds},
    ]


_NUMPY_GLOBALS = _numpy_globals()
_PARTS = (Tensor, Mapping, list, tuple, set)
# Exceptions of torch.load for damaged files, besides UnpicklingError.
_UNREADABLE = (
    *(RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError, AttributeError),
    *(AssertionError, ArithmeticError, struct.error),
)


@dataclass(frozen=True)
class LoadReport:
    """The tensors of a weight file by their names in the model (`unexpected`: in the file).

    Attributes:
        loaded: copied into the model.
        missing: the model has them, the file does not.
        unexpected: the file has them, the model does not.
        mismatched: both have them, with different shapes.
        reshaped: those of `loaded` that were resampled or reshaped, such as position embeddings.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    reshaped: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = f"{len(self.loaded)} tensors fit"
        parts = [
            f"{len(names)} {what} ({shorten(names)})"
            for what, names in (
                ("missing", self.missing),
                ("unexpected", self.unexpected),
                ("of another shape", self.mismatched),
                ("resampled", self.reshaped),
            )
            if names
        ]
        return ", ".join([counts, *parts])


def shorten(names: tuple[str, ...], limit: int = 4) -> str:
    """The first `limit` names, and how many there are besides."""
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def read_checkpoint(path: str | Path) -> Any:
    """Read a file of torch.save or safetensors to the CPU without executing code from it.

    The content decides which of the two it is, not the name.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, is neither of the two, or contains more than tensors and
            plain containers.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"weight file {path} does not exist")
    if not path.is_file():
        raise ValueError(f"weight file {path} is a folder or a special file")
    if is_safetensors(path):
        return _read_safetensors(path)
    _verify_archive(path)
    try:
        # An open file, because torch.load decides by the name whether a path is a safetensors file.
        with (
            path.open("rb") as file,
            torch.serialization.safe_globals(_NUMPY_GLOBALS),
            warnings.catch_warnings(),
        ):
            # torch comments on old pickles and unusual tensors, which are refused below.
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reason = next((line for line in lines if "Unsupported" in line), lines[-1])
        if "Unsupported operand" in reason and not _looks_like_torch(path):
            size = path.stat().st_size
            raise ValueError(
                f"weight file {path} is damaged or not a torch file ({size} bytes)"
            ) from error
        raise ValueError(
            f"weight file {path} is not read, because it contains more than tensors and plain "
            f"containers and loading it would execute code: {reason}"
        ) from error
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or ["it is incomplete"])[0]
        raise ValueError(
            f"weight file {path} is damaged or not a torch file ({path.stat().st_size} bytes): "
            f"{reason}"
        ) from error
    _check_parts(content, path)
    return content


def _verify_archive(path: Path) -> None:
    """Compare the members of a zip archive of torch.save with their checksums.

    torch.load does not do this. The checksums cover everything that it reads: the tensors, and the
    pickle with all other values. Archives without checksums are accepted, see
    `torch.serialization.set_crc32_options`.

    Raises:
        ValueError: a member was changed, or the archive is damaged.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            # Compressed archives can be larger than the memory.
            is_compressed = sum(info.file_size for info in members) > path.stat().st_size
            if is_compressed or not any(info.CRC for info in members):
                return
            changed = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, *_UNREADABLE) as error:
        raise ValueError(
            f"weight file {path} is damaged or not a torch file ({path.stat().st_size} bytes): "
            f"{error}"
        ) from error
    if changed:
        raise ValueError(
            f"weight file {path} is damaged: {changed!r:.100} differs from what was saved"
        )


def _looks_like_torch(path: Path) -> bool:
    """Whether a file starts like a zip archive or a pickle."""
    with path.open("rb") as file:
        return file.read(4).startswith((b"PK\x03\x04", b"\x80"))


def _check_parts(content: Any, path: Path) -> None:
    """Raise ValueError for unusual tensors, and for containers that contain themselves."""
    pending, count = [(content, 0)], 0
    while pending:
        part, depth = pending.pop()
        count += 1
        if depth > MAX_DEPTH or count + len(pending) > MAX_PARTS:
            raise ValueError(
                f"weight file {path} is nested more than {MAX_DEPTH} levels deep or has more than "
                f"{MAX_PARTS} parts"
            )
        if isinstance(part, Tensor):
            problem = _tensor_problem(part)
            if problem:
                raise ValueError(f"weight file {path} contains a tensor that {problem}")
            continue
        inner = part.values() if isinstance(part, Mapping) else part
        if isinstance(inner, Iterable) and not isinstance(inner, (str, bytes, np.ndarray)):
            pending += [(value, depth + 1) for value in inner if isinstance(value, _PARTS)]


def _tensor_problem(tensor: Tensor) -> str:
    """Why a tensor cannot be used like an ordinary one; "" if it can."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        return "is sparse or quantized"
    if tensor.device.type != "cpu":
        return "has no values"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"has the shape {tuple(tensor.shape)}, for which the file has too few values"
    return ""


def is_safetensors(path: Path) -> bool:
    """Whether a file starts like a safetensors file: length of the header (8 bytes), then JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and 2 <= length <= path.stat().st_size - 8


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"weight file {path} is a damaged safetensors file: {error}") from error


def find_state_dict(content: Any, path: str | Path) -> dict[str, Tensor]:
    """The tensors by name in a checkpoint, without wrappers and DataParallel's prefix "module.".

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
        names = shorten(tuple(map(str, content))) if isinstance(content, Mapping) else ""
        found = f"the keys {names}" if names else type(content).__name__
        raise ValueError(f"weight file {path} contains no state dict; found {found}")
    return {k.removeprefix("module."): v for k, v in tensors.items()}


def _tensors(content: Any) -> dict[str, Tensor]:
    """The tensors of a mapping; numpy arrays become tensors."""
    if not isinstance(content, Mapping):
        return {}
    arrays = {
        k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in content.items()
    }
    return {k: v for k, v in arrays.items() if isinstance(k, str) and isinstance(v, Tensor)}


def match_state_dict(model: nn.Module, tensors: Mapping[str, Tensor]) -> LoadReport:
    """What loading `tensors` into `model` would do. Counters of batch norms may be missing."""
    own = model.state_dict()
    shared = [k for k in own if k in tensors]
    return LoadReport(
        loaded=tuple(k for k in shared if own[k].shape == tensors[k].shape),
        missing=tuple(k for k in own if k not in tensors and not k.endswith("num_batches_tracked")),
        unexpected=tuple(k for k in tensors if k not in own),
        mismatched=tuple(k for k in shared if own[k].shape != tensors[k].shape),
    )


def check_types(model: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise ValueError if a file has integers or complex numbers where the model has weights."""
    for name, own in model.state_dict().items():
        if own.is_floating_point() and name in tensors and not tensors[name].is_floating_point():
            raise ValueError(
                f"weight file {path}: {name} has values of type {tensors[name].dtype}, "
                "expected floating-point numbers"
            )
