"""Decode image files to uint8 tensors."""

import logging
import math
import os
import stat
import struct
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

logger = logging.getLogger("ember.data")
Item = TypeVar("Item")

GIB = 2**30
# A larger image is refused, because a small file can unpack into gigabytes.
MAX_PIXELS = 100_000_000
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
_EXIF_ORIENTATION = 0x0112
_MAX_SHOWN = 300
# Where Linux shows the limits of a container.
CONTROL_GROUPS = Path("/sys/fs/cgroup")
# Exceptions of Pillow for damaged files.
_DECODING_ERRORS = (
    *(OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, ArithmeticError),
    *(struct.error, zlib.error),
)

# Pillow warns about damaged metadata and large images. Files that cannot be used are reported as
# ImageError, and files that can be used need no warning. The filters are set once because
# `warnings.catch_warnings` is not safe in threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class ImageError(OSError):
    """An image file that cannot be used; the message names the file and the reason.

    An exception from a loader process has its traceback in the message; only the last sentence is
    kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.strip().rsplit(f"{type(self).__name__}: ", 1)[-1])


def show_path(path: Path) -> str:
    """The path for messages: one line, valid Unicode, at most 300 characters (the end is kept)."""
    text = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in str(path)
    )
    return text if len(text) <= _MAX_SHOWN else f"...{text[-_MAX_SHOWN:]}"


def find_file_problem(path: Path, *, may_be_empty: bool = False) -> str:
    """Why a path is not a regular file with content, without opening it; "" if it is one.

    Opening a FIFO or a device could block forever.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    except ValueError:
        return "cannot be opened (the path contains a NUL byte)"
    if stat.S_ISDIR(status.st_mode):
        return "is a folder"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    return "" if status.st_size or may_be_empty else "is empty (0 bytes)"


def open_image(path: Path) -> Image.Image:
    """Decode a file into an 8-bit RGB image, rotated according to its EXIF tag.

    Grayscale, palette, CMYK and 16-bit files are converted, and transparency is dropped. Files with
    32-bit pixels are refused, because the range of their values is not known.

    Raises:
        ImageError: if the file is missing, empty, special, truncated, not an image, or larger than
            MAX_PIXELS.
    """
    problem = find_file_problem(path)
    if problem:
        raise ImageError(f"{show_path(path)} {problem}")
    try:
        with Image.open(path) as file:
            width, height = file.size
            if width * height > MAX_PIXELS:
                raise ImageError(
                    f"{show_path(path)} is {width} x {height} pixels; images above"
                    f" {MAX_PIXELS:,} pixels are refused"
                )
            return _to_rgb(file, path)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(
            f"{show_path(path)} has more than {MAX_PIXELS:,} pixels and is refused"
        ) from None
    except _DECODING_ERRORS as error:
        raise ImageError(
            f"{show_path(path)} cannot be decoded as an image ({_reason(error)})"
        ) from None


def _to_rgb(file: Image.Image, path: Path) -> Image.Image:
    """Decode, rotate and convert an opened file. Raises ImageError for 32-bit pixels."""
    # Pillow reads 16-bit PNM files as 32-bit integers in 0..65535; so did old versions with PNG.
    has_16_bits = file.mode.startswith("I;16") or (
        file.mode == "I" and file.format in ("PNG", "PPM")
    )
    if file.mode in ("I", "F") and not has_16_bits:
        kind = "integer" if file.mode == "I" else "floating-point"
        raise ImageError(
            f"{show_path(path)} has 32-bit {kind} pixels, whose range is not known; convert it to"
            " 8 bits per channel"
        )
    image: Image.Image = file
    if file.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(file)
    if has_16_bits:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return "not an image format that Pillow supports" if "cannot identify" in text else text[:200]


def load_image(path: Path, *, size: tuple[int, int], interpolation: str = "bilinear") -> Tensor:
    """Read an image and resize it (antialiased) to `size` (H, W): uint8 [3, H, W].

    Raises:
        ImageError: see `open_image`.
    """
    image = open_image(path)
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), INTERPOLATIONS[interpolation])
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def find_broken(paths: Sequence[Path]) -> dict[Path, str]:
    """Decode every file; return the unusable ones with the reason, in the given order."""

    def reason(path: Path) -> str:
        try:
            open_image(path)
        except ImageError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(num_cpus()) as pool:
        reasons = list(pool.map(reason, paths))
    return {path: text for path, text in zip(paths, reasons, strict=True) if text}


def check_files(paths: Sequence[Path]) -> None:
    """Raise ImageError if a file is missing, empty or special. No file is read."""
    problems = ((path, find_file_problem(path)) for path in paths)
    raise_broken([f"{show_path(path)} {problem}" for path, problem in problems if problem])


def raise_broken(messages: Sequence[str]) -> None:
    """Raise ImageError with the first message and the number of others, if there are messages."""
    if messages:
        raise broken_error(messages[0], len(messages) - 1)


def broken_error(message: str, num_others: int = 0) -> ImageError:
    """The error for an unusable image file and `num_others` more, with possible solutions."""
    more = f", and {num_others} more image files are unusable" if num_others else ""
    return ImageError(
        f"{message}{more}; repair or remove them, or train without them:"
        " DATALOADER.SKIP_BROKEN True"
    )


def run_logged(work: Callable[[Item], Any], items: Sequence[Item], *, every: float = 10.0) -> None:
    """Run `work` on all items in threads and log the progress every `every` seconds."""
    started = reported = time.perf_counter()
    with ThreadPoolExecutor(num_cpus()) as pool:
        for done, _ in enumerate(pool.map(work, items), start=1):
            now = time.perf_counter()
            if now - reported >= every:
                reported = now
                logger.info(
                    "decoded %d of %d images (%.0f/s)", done, len(items), done / (now - started)
                )


def num_cpus() -> int:
    """The number of CPUs that this process may use, in a container at most its quota."""
    try:
        num = len(os.sched_getaffinity(0))
    except AttributeError:
        # macOS and Windows
        return os.cpu_count() or 1
    return max(1, math.ceil(min(num, _cpu_quota())))


def _cpu_quota() -> float:
    """The CPU time per second that the control group of a container allows; inf without limit."""
    try:
        # Version 2: "max 100000" or "150000 100000", microseconds of each period.
        quota, period = (CONTROL_GROUPS / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        # Version 1; a quota of -1 is none.
        quota, period = (
            (CONTROL_GROUPS / "cpu" / f"cpu.cfs_{name}_us").read_text()
            for name in ("quota", "period")
        )
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def free_memory(device: torch.device | None = None) -> int:
    """Bytes that are free without swapping, or free on a GPU; 2^62 if unknown."""
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 2**62
