"""Image files to uint8 tensors."""

import logging
import os
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

logger = logging.getLogger("ember.data")

GIB = 2**30
MAX_PIXELS = 100_000_000  # a larger image is refused: a small file can unpack into gigabytes
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
_EXIF_ORIENTATION = 0x0112


class ImageError(OSError):
    """An image file that cannot be used; the message names the file and the reason in one sentence.

    A loader process hands an exception on with its traceback in the message; of that the sentence is kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.strip().rsplit(f"{type(self).__name__}: ", 1)[-1])


def open_image(path: Path) -> Image.Image:
    """Decode a file into an 8-bit RGB picture, upright as its EXIF tag says.

    Grayscale, palette, CMYK and 16-bit files are converted and transparency is dropped. Raises ImageError
    when the file is missing, empty, truncated, not an image, or larger than MAX_PIXELS.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(
                    f"{path} is {width} x {height} pixels; images above {MAX_PIXELS:,} pixels are refused"
                )
            if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I;16"):
                eight_bits = (np.asarray(image) >> 8).astype(np.uint8)
                return Image.fromarray(eight_bits).convert("RGB")
            return image.convert("RGB")
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path} has more than {MAX_PIXELS:,} pixels and is refused") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        if Path(path).is_file() and Path(path).stat().st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes)") from None
        raise ImageError(f"{path} cannot be decoded as an image ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return "not an image format that Pillow knows" if "cannot identify" in text else text


def load_image(path: Path, *, size: tuple[int, int], interpolation: str = "bilinear") -> Tensor:
    """Read, resize (antialiased) and return an image as uint8 [3, H, W] for `size` (H, W)."""
    image = open_image(path)
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), INTERPOLATIONS[interpolation])
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def find_broken(paths: Sequence[Path]) -> dict[Path, str]:
    """Decode every file and return the unusable ones with the reason, in the order given."""

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
    """Raise ImageError when a file is missing or empty; without reading any, so it is quick."""
    bad = []
    for path in paths:
        try:
            if os.stat(path).st_size == 0:
                bad.append(f"{path} is empty (0 bytes)")
        except OSError:
            bad.append(f"{path} does not exist")
    raise_broken(bad)


def raise_broken(messages: Sequence[str]) -> None:
    """Raise ImageError with the first message and the number of the others, if there are any."""
    if messages:
        more = (
            f", and {len(messages) - 1} more image files are unusable" if len(messages) > 1 else ""
        )
        raise ImageError(
            f"{messages[0]}{more}; repair or remove them, or go on without them: DATALOADER.SKIP_BROKEN True"
        )


def run_logged(work: Callable, items: Sequence, *, every: float = 10.0) -> None:
    """Run `work` on all items in threads and log the progress every few seconds."""
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
    """CPUs this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        return os.cpu_count() or 1


def free_memory(device: torch.device | None = None) -> int:
    """Bytes that can be taken without swapping, or of a GPU; a huge number where the system does not tell."""
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 2**62
