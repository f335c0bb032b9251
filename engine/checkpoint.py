"""Checkpoint files: written atomically, verified, and read without executing anything."""

import logging
import os
import shutil
from pathlib import Path

import torch
from ember_reid.engine.integrity import (
    compute_checksums,
    copy_to_cpu,
    find_non_finite,
    verify_content,
)
from ember_reid.modeling.weight_files import read_checkpoint

logger = logging.getLogger("ember.train")

FORMAT = "ember-reid/1"
LAST, PREVIOUS = "last.pt", "previous.pt"


class NonFiniteWeights(ValueError):
    """Weights or optimizer states are NaN or infinite."""


def save_checkpoint(path: Path, content: dict, *, previous: Path | None = None) -> None:
    """Write `content` so that `path` always contains either the old file or the complete new one.

    A checksum of every tensor is stored in the file. The old file is kept as `previous`, if given.

    Raises:
        NonFiniteWeights: weights or optimizer states are NaN or infinite; nothing is written.
        OSError: the disk is full or not writable; the old file is unchanged.
    """
    content = copy_to_cpu(content)
    non_finite = find_non_finite(content)
    if non_finite:
        raise NonFiniteWeights(
            f"the weights are not finite ({non_finite}), {path} is not written; the last good "
            "checkpoint is kept; try a lower SOLVER.BASE_LR, a longer SOLVER.WARMUP_EPOCHS or "
            "SOLVER.CLIP_NORM 5"
        )
    content["checksums"] = compute_checksums(content)
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
    except (OSError, RuntimeError) as error:
        # The zip writer of torch reports a full disk as RuntimeError.
        temporary.unlink(missing_ok=True)
        kept = " (the previous checkpoint is unchanged)" if path.exists() else ""
        raise OSError(
            f"checkpoint {path} could not be written: {_first_line(error)}{kept}; is the disk full?"
        ) from error


def _keep(path: Path, previous: Path) -> None:
    """Keep the file at `path` as `previous`: a hard link, or a copy if links are not supported."""
    temporary = previous.with_name(f".{previous.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        shutil.copyfile(path, temporary)
    os.replace(temporary, previous)


def _sync_folder(folder: Path) -> None:
    """Flush the renaming to disk, if the system can open a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_ours(content: object) -> bool:
    """Whether the content was written by `save_checkpoint`."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def load_checkpoint(path: str | Path) -> dict:
    """The verified content of one of our checkpoints, with tensors on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, would execute code, or is not one of our checkpoints.
    """
    content = read_checkpoint(path)
    if not is_ours(content):
        raise ValueError(
            f"{path} is not a checkpoint of this program (format {FORMAT}): also give its recipe "
            "with -c"
        )
    verify_content(content, path)
    return content


def load_last(folder: Path) -> tuple[Path, dict]:
    """Read `last.pt` of a run, or `previous.pt` with one warning if that is damaged or missing.

    Returns:
        The path that was read, and its content.

    Raises:
        FileNotFoundError: neither of them exists.
        ValueError: neither of them can be used; the message is about the first one.
    """
    paths = [path for path in (folder / LAST, folder / PREVIOUS) if path.is_file()]
    if not paths:
        raise FileNotFoundError(f"--resume: there is no {folder / LAST}; start without --resume")
    if paths[0].name != LAST:
        logger.warning("there is no %s; continuing from %s", folder / LAST, paths[0])
    try:
        return paths[0], _load_finite(paths[0])
    except ValueError as error:
        try:
            content = _load_finite(paths[-1]) if len(paths) > 1 else None
        except (OSError, ValueError):
            content = None
        if content is None:
            raise error from None
        logger.warning("%s; continuing from %s, one checkpoint earlier", error, paths[-1])
        return paths[-1], content


def _load_finite(path: Path) -> dict:
    content = load_checkpoint(path)
    non_finite = find_non_finite(content)
    if non_finite:
        raise ValueError(f"{path} has NaN or infinite values in {non_finite}")
    return content


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
