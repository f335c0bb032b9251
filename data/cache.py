"""Where decoded images are kept: in the memory of a device, of the machine, or nowhere."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from ember_reid.data.batch import upload
from ember_reid.data.images import (
    GIB,
    ImageError,
    free_memory,
    load_image,
    raise_broken,
    run_logged,
)
from torch import Tensor

logger = logging.getLogger("ember.data")

CPU = torch.device("cpu")
MODES = ("auto", "device", "ram", "none")
_SPARED = 0.25  # of what is free stays free, whatever else is asked for


class ImageCache:
    """All images of a dataset, decoded once into one uint8 tensor [N, 3, H, W] on `device`, from which batches are gathered.

    On a CPU in ordinary memory: shared memory is as small as 64 MiB in a container, and a loader with a cache has no
    processes.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        size: tuple[int, int],
        interpolation: str = "bilinear",
        device: torch.device = CPU,
    ) -> None:
        """Decode `paths`, one thread per CPU (Pillow lets go of the interpreter lock). Raises ImageError."""
        self.rows = {path: row for row, path in enumerate(dict.fromkeys(paths))}
        self.images = torch.empty((len(self.rows), 3, *size), dtype=torch.uint8, device=device)
        broken: dict[int, str] = {}

        def decode(item: tuple[Path, int]) -> None:
            path, row = item
            try:
                self.images[row] = load_image(path, size=size, interpolation=interpolation)
            except ImageError as error:
                broken[row] = str(error)

        started = time.perf_counter()
        run_logged(decode, list(self.rows.items()))
        raise_broken([broken[row] for row in sorted(broken)])
        seconds = max(time.perf_counter() - started, 1e-9)
        logger.info(
            "cached %d images at %d x %d on %s: %.2f GiB in %.1f s (%.0f images/s)",
            len(self.rows),
            *size,
            self.images.device,
            self.images.nbytes / GIB,
            seconds,
            len(self.rows) / seconds,
        )

    @property
    def device(self) -> torch.device:
        return self.images.device

    def load(self, paths: Sequence[Path]) -> Tensor:
        """The images of `paths` as uint8 [len(paths), 3, H, W] on the cache's device: one gather."""
        rows = torch.tensor([self.rows[path] for path in paths], dtype=torch.int64)
        return self.images.index_select(0, upload(rows, self.device))


def choose_cache(
    num_images: int,
    *,
    size: tuple[int, int],
    mode: str,
    budget_gib: float,
    device: torch.device = CPU,
    device_share: float = 0.3,
    copies: int = 1,
) -> torch.device | None:
    """Where `num_images` at `size` (H, W) are kept under DATALOADER.CACHE `mode`; None: files are decoded as they are used.

    "auto" is the memory of `device` where it is not the CPU and the images take at most `device_share` of what is free in
    it, else ordinary memory where they take at most `budget_gib` and `copies` of them (one per process) leave a quarter of
    it free, else None. "device" asks the device alone to leave a quarter free, and goes on like "auto". One line in the
    log says what was chosen and why.
    """
    if mode not in MODES:
        raise ValueError(
            f'DATALOADER.CACHE is "{mode}"; choose {", ".join(MODES[:-1])} or {MODES[-1]}'
        )
    if mode in ("ram", "none"):
        return CPU if mode == "ram" else None
    if device.type == "cpu" and mode == "device":
        return CPU
    needed = num_images * 3 * size[0] * size[1]
    reasons = []
    if device.type != "cpu":
        free = free_memory(device)
        limit = (device_share if mode == "auto" else 1 - _SPARED) * free
        reasons.append(
            f"{_gib(limit)} of the {_gib(free)} free on {device} (DATALOADER.CACHE_SHARE)"
        )
        if needed <= limit:
            return _choose(device, num_images, needed, reasons)
    free = free_memory()
    limit = min(budget_gib * GIB, (1 - _SPARED) * free / copies)
    reasons.append(f"{_gib(limit)} of the {_gib(free)} free in this machine (DATALOADER.CACHE_GIB)")
    return _choose(CPU if needed <= limit else None, num_images, needed, reasons)


def _choose(
    place: torch.device | None, num_images: int, needed: int, reasons: Sequence[str]
) -> torch.device | None:
    where = "files are decoded as they are used" if place is None else f"they are kept on {place}"
    logger.info(
        "%d images need %s decoded, allowed are %s: %s",
        num_images,
        _gib(needed),
        ", ".join(reasons),
        where,
    )
    return place


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"
