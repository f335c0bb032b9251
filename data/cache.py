"""Choose where decoded images are cached: on a device, in memory, or not at all."""

import logging
from collections.abc import Sequence

import torch
from ember_reid.data.images import GIB, free_memory

logger = logging.getLogger("ember.data")

CPU = torch.device("cpu")
MODES = ("auto", "device", "ram", "none")
# The fraction of the free memory that is never used.
_SPARED = 0.25


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
    """Choose the device of the cache; None means that files are decoded when they are used.

    "auto" uses `device` if it is not the CPU and the images need at most `device_share` of its free
    memory. Otherwise it uses the main memory, if the images need at most `budget_gib` and a quarter
    of the free memory remains after `copies` of them. "device" only requires that a quarter of the
    device's memory remains free, and otherwise works like "auto". One log line states the choice
    and its reason.

    Args:
        num_images: images to keep.
        size: (H, W).
        mode: DATALOADER.CACHE.
        budget_gib: DATALOADER.CACHE_GIB.
        device: the device of the training.
        device_share: DATALOADER.CACHE_SHARE.
        copies: processes, each of which has a copy in the main memory.
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
    where = "files are decoded when they are used" if place is None else f"cached on {place}"
    logger.info(
        "%d decoded images need %s; the limit is %s: %s",
        num_images,
        _gib(needed),
        ", ".join(reasons),
        where,
    )
    return place


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"
