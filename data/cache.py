"""The choice of where decoded images are kept: on a device, in memory, or nowhere."""

import logging
from collections.abc import Sequence

import torch
from ember_reid.data.images import GIB, free_memory

logger = logging.getLogger("ember.data")

CPU = torch.device("cpu")
MODES = ("auto", "device", "ram", "none")
_SPARED = 0.25  # of what is free stays free, whatever else is asked for


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
