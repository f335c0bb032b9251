"""Checkpoint files: written whole or not at all, read without executing anything."""

import os
from pathlib import Path

import torch

from modeling.weights import read_checkpoint

FORMAT = "ember-reid/1"


def save_checkpoint(path: Path, content: dict) -> None:
    """Write `content` so that `path` holds either the old file or the whole new one at any moment.

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
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as RuntimeError
        temporary.unlink(missing_ok=True)
        kept = " (the checkpoint that was there before is unharmed)" if path.exists() else ""
        raise OSError(
            f"checkpoint {path} could not be written: {_first_line(error)}{kept}; is the disk full?"
        ) from error


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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
