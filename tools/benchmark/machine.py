"""Time, memory and the name of this machine, for the measurements."""

import gc
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def synchronize() -> None:
    """Wait for the GPU if one is in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_memory(function: Callable, device: torch.device):
    """Call `function`; return its result and its peak memory in bytes (NaN if unknown)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = function()
        return result, torch.cuda.max_memory_allocated(device) - before
    # Garbage that is freed during the call would make the peak too small.
    gc.collect()
    try:
        # On Linux, this resets the peak to the memory in use.
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return function(), float("nan")
    before = memory_status("VmRSS")
    result = function()
    return result, memory_status("VmHWM") - before


def memory_status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def seconds_per_call(function: Callable[[], object], repeats: int) -> float:
    """Seconds of a call on the current device, measured after a tenth of the calls."""
    for _ in range(max(1, repeats // 10)):
        function()
    synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        function()
    synchronize()
    return (time.perf_counter() - started) / repeats


def format_seconds(seconds: np.ndarray) -> str:
    """Median and range in a suitable unit."""
    unit, name = (1.0, "s") if np.median(seconds) >= 1 else (1e3, "ms")
    low, middle, high = (
        value * unit for value in (seconds.min(), np.median(seconds), seconds.max())
    )
    return f"{middle:.3g} {name} ({low:.3g}-{high:.3g})"


def processor_name() -> str:
    """The name of the processor, if the system provides it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
