"""Files that appear when they are complete, so that a full disk leaves no part of one."""

import os
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
