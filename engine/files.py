"""Files that appear when they are complete, so that a full disk leaves no part of one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield the path of a draft in the same folder, which replaces `path` at the end of the block.

    After an error, the draft is deleted and `path` is unchanged. A symbolic link is replaced, not
    followed. Devices and pipes are written directly.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    draft = draft_path(path)
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield an empty draft in the same parent folder, which replaces the folder `path`.

    After an error, the draft is deleted and `path` is unchanged.
    """
    path = path.resolve()
    draft = draft_path(path)
    previous = draft.with_name(f"{draft.name}.previous")
    draft.mkdir(parents=True)
    try:
        yield draft
        if path.exists():
            os.rename(path, previous)
        try:
            os.rename(draft, path)
        except OSError:
            if previous.exists():
                os.rename(previous, path)
            raise
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def draft_path(path: Path) -> Path:
    """The name of a draft of this process; the suffix is that of the file."""
    return path.with_name(f".{os.getpid()}.{path.name}")


def find_drafts(path: Path) -> Iterator[Path]:
    """The drafts of a file that killed processes left behind."""
    return path.parent.glob(f".[0-9]*.{path.name}")


def replace_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8; see `replaced_file`."""
    with replaced_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
