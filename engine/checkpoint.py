"""Checkpoint files: written whole or not at all, read without executing anything."""

import logging
import os
import shutil
from pathlib import Path

import torch
from ember_reid.modeling.weight_files import read_checkpoint

logger = logging.getLogger("ember.train")

FORMAT = "ember-reid/1"
LAST, PREVIOUS = "last.pt", "previous.pt"


def save_checkpoint(path: Path, content: dict, *, previous: Path | None = None) -> None:
    """Write `content` so that `path` holds either the old file or the whole new one at any moment.

    The old file stays as `previous`, where one is named.

    Raises:
        OSError: the disk is full or not writable; the file that was there stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            _keep(path, previous)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (
        OSError,
        RuntimeError,
    ) as error:  # torch's zip writer reports a full disk as RuntimeError
        temporary.unlink(missing_ok=True)
        kept = " (the checkpoint that was there before is unharmed)" if path.exists() else ""
        raise OSError(
            f"checkpoint {path} could not be written: {_first_line(error)}{kept}; is the disk full?"
        ) from error


def _keep(path: Path, previous: Path) -> None:
    """Let `previous` be the file at `path` as well; a copy of it where the file system knows no second names."""
    temporary = previous.with_name(f".{previous.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        shutil.copyfile(path, temporary)
    os.replace(temporary, previous)


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself durable, where the system lets a folder be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_ours(content: object) -> bool:
    """Whether the content of a file was written by `save_checkpoint`."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def load_checkpoint(path: str | Path) -> dict:
    """The content of one of our checkpoints, tensors on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, wants to execute code, or is somebody else's.
    """
    content = read_checkpoint(path)
    if not is_ours(content):
        raise ValueError(
            f"{path} is no checkpoint of this program (format {FORMAT}): give its recipe with -c as well"
        )
    return content


def load_last(folder: Path) -> tuple[Path, dict]:
    """`last.pt` of a run and its content; where it cannot be read, after one line, the one that was there before it.

    Raises:
        FileNotFoundError: there is no `last.pt`.
        ValueError: neither of them can be read; the message is about `last.pt`.
    """
    path, previous = folder / LAST, folder / PREVIOUS
    if not path.is_file():
        raise FileNotFoundError(f"--resume: there is no {path}; start without --resume")
    try:
        return path, load_checkpoint(path)
    except ValueError as error:
        try:
            content = load_checkpoint(previous)
        except (OSError, ValueError):
            raise error from None
        logger.warning("%s; going on from %s, one checkpoint earlier", error, previous)
        return previous, content


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
