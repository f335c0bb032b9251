"""Image files to uint8 tensors, and the cache that keeps a whole dataset decoded in memory."""

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

    Greyscale, palette, CMYK and 16-bit files are converted and transparency is dropped. Raises ImageError
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
        more = f", and {len(messages) - 1} more image files are unusable" if len(messages) > 1 else ""
        raise ImageError(
            f"{messages[0]}{more}; repair or remove them, or go on without them: DATALOADER.SKIP_BROKEN True"
        )


class ImageCache:
    """All images of a dataset, decoded once into one uint8 tensor [N, 3, H, W].

    In ordinary memory: shared memory is as small as 64 MiB in a container, and a loader with a cache has no processes.
    """

    def __init__(
        self, paths: Sequence[Path], *, size: tuple[int, int], interpolation: str = "bilinear"
    ) -> None:
        """Decode `paths`, one thread per CPU (Pillow lets go of the interpreter lock). Raises ImageError."""
        self.rows = {path: row for row, path in enumerate(dict.fromkeys(paths))}
        self.images = torch.empty((len(self.rows), 3, *size), dtype=torch.uint8)
        broken: dict[int, str] = {}

        def decode(item: tuple[Path, int]) -> None:
            path, row = item
            try:
                self.images[row] = load_image(path, size=size, interpolation=interpolation)
            except ImageError as error:
                broken[row] = str(error)

        started = time.perf_counter()
        _run_logged(decode, list(self.rows.items()))
        raise_broken([broken[row] for row in sorted(broken)])
        seconds = max(time.perf_counter() - started, 1e-9)
        logger.info(
            "cached %d images at %d x %d: %.2f GiB in %.1f s (%.0f images/s)",
            len(self.rows),
            *size,
            self.images.nbytes / GIB,
            seconds,
            len(self.rows) / seconds,
        )

    def load(self, paths: Sequence[Path]) -> Tensor:
        """The images of `paths` as uint8 [len(paths), 3, H, W]: one gather."""
        return self.images.index_select(
            0, torch.tensor([self.rows[path] for path in paths], dtype=torch.int64)
        )


def _run_logged(work: Callable, items: Sequence, *, every: float = 10.0) -> None:
    """Run `work` on all items in threads and log the progress every few seconds."""
    started = reported = time.perf_counter()
    with ThreadPoolExecutor(num_cpus()) as pool:
        for done, _ in enumerate(pool.map(work, items), start=1):
            now = time.perf_counter()
            if now - reported >= every:
                reported = now
                logger.info("decoded %d of %d images (%.0f/s)", done, len(items), done / (now - started))


def num_cpus() -> int:
    """CPUs this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        return os.cpu_count() or 1


def free_memory() -> int:
    """Bytes of memory that can be taken without swapping; a huge number where the system does not tell."""
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 2**62


def fits_cache(
    num_images: int, *, size: tuple[int, int], mode: str, budget_gib: float, copies: int = 1
) -> bool:
    """Whether `num_images` at `size` (H, W) are to be cached under DATALOADER.CACHE `mode`.

    "auto" says no, with one line in the log, when the images exceed `budget_gib`, or when `copies` of them
    (one per process) exceed three quarters of the free memory.
    """
    if mode not in ("auto", "ram", "none"):
        raise ValueError(f'DATALOADER.CACHE is "{mode}"; choose auto, ram or none')
    if mode != "auto":
        return mode == "ram"
    needed = num_images * 3 * size[0] * size[1]
    free = free_memory()
    if needed <= budget_gib * GIB and needed * copies <= 0.75 * free:
        return True
    logger.info(
        "%d images need %.1f GiB decoded; the cache may hold %.1f GiB and %.1f GiB are free, so files are"
        " decoded as they are used (DATALOADER.CACHE_GIB raises the limit)",
        num_images,
        needed / GIB,
        budget_gib,
        free / GIB,
    )
    return False
