"""One run per output folder."""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger("ember.main")

LOCK_FILE = ".lock"


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of an output folder, which is created, and removed if it stays empty.

    The operating system releases the lock when the process ends in any way, so a lock file that a
    killed run left behind has no effect.

    Raises:
        ValueError: another process is writing to this folder, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"OUTPUT_DIR {folder} is a file; name a folder")
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    descriptor = _acquire(path, folder)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        for empty in created:
            try:
                empty.rmdir()
            except OSError:
                break


def _acquire(path: Path, folder: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise ValueError(
                f"OUTPUT_DIR {folder} is in use by another run (process {owner or 'unknown'}); "
                "wait for it or choose another OUTPUT_DIR"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                os.close(descriptor)
                raise
            logger.warning("OUTPUT_DIR %s cannot be locked: %s", folder, error)
            return descriptor
        # The previous owner may have removed the file, so that this lock is on a deleted file.
        try:
            is_current = os.fstat(descriptor).st_ino == os.stat(path).st_ino
        except FileNotFoundError:
            is_current = False
        if is_current:
            # The number is for messages only, and the disk may be full.
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            return descriptor
        os.close(descriptor)
