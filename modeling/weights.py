"""Weight files: read safely, matched by name and shape, reported in full."""

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

logger = logging.getLogger("ember.weights")

_WRAPPERS = ("model", "state_dict", "model_state_dict", "net", "network")


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
    """The content of a file written by torch.save, on the CPU, read without executing anything in it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of torch, a broken one, or one with more than tensors and plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weight file {path} does not exist")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[-1] if "Unsupported" not in str(error) else _unsupported(str(error))
        raise ValueError(
            f"weight file {path} is not read, because it holds more than tensors and plain containers "
            f"and loading it would execute code: {reason}"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or ["it ends early"])[0]
        raise ValueError(
            f"weight file {path} is broken or no file of torch ({path.stat().st_size} bytes): {reason}"
        ) from error


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
    tensors = (
        {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    )
    if not tensors:
        found = (
            f"the keys {_shorten(tuple(map(str, content)))}"
            if isinstance(content, Mapping)
            else type(content).__name__
        )
        raise ValueError(f"weight file {path} holds no state dict; found {found}")
    return {k.removeprefix("module."): v for k, v in tensors.items()}


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
    return "classifier" in name.split(".")


def load_weights(model: nn.Module, path: str | Path) -> LoadReport:
    """Loads a checkpoint of ours, or any state dict with our names, into `model`.

    Classifiers may be missing, unexpected or of another shape (other identities): they are left as they are.

    Returns:
        What was loaded, missing, unexpected, mismatched; also logged.

    Raises:
        FileNotFoundError, ValueError: see read_checkpoint; also when anything but a classifier does not fit.
            The model is unchanged then.
    """
    tensors = find_state_dict(read_checkpoint(path), path)
    report = match_state_dict(model, tensors)
    wrong = [n for n in report.missing + report.unexpected + report.mismatched if not _is_classifier(n)]
    if wrong or not report.loaded:
        raise ValueError(f"weight file {path} is of another architecture: {report}")
    model.load_state_dict({k: tensors[k] for k in report.loaded}, strict=False)
    log = logger.info if len(report.loaded) == len(model.state_dict()) else logger.warning
    log("%s: %s", path, report)
    return report
