"""Part 1: versions, the cost of a launch, and the speed of copies and matrix products."""

import torch
from ember_reid.engine.environment import collect_env_info
from ember_reid.tools.benchmark.machine import seconds_per_call
from ember_reid.tools.check_gpu.results import Result
from ember_reid.tools.check_gpu.setting import Setting

MIB = 2**20


def check(setting: Setting, result: Result) -> None:
    """Record versions and the speed of elementary operations."""
    device = torch.device(setting.device)
    for name, value in collect_env_info(device).items():
        result.record(name, value)
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability()
        result.record("compute capability", f"{capability[0]}.{capability[1]}")
        result.record("cudnn", torch.backends.cudnn.version())
        free, total = torch.cuda.mem_get_info()
        result.record("memory", f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
        result.check("bfloat16", torch.cuda.is_bf16_supported(), f"capability {capability}")
    repeats = 20 if setting.rehearse else 200
    small = torch.zeros(1, device=device)
    result.record("launch", f"{1e6 * seconds_per_call(lambda: small.add_(1), repeats):.1f} us")
    _measure_copies(device, result, size=MIB if setting.rehearse else 256 * MIB)
    _measure_products(device, result, size=64 if setting.rehearse else 8192)


def _measure_copies(device: torch.device, result: Result, *, size: int) -> None:
    pinned = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    there = torch.empty(size, dtype=torch.uint8, device=device)
    for name, copy in (
        ("copy to the device", lambda: there.copy_(pinned, non_blocking=True)),
        ("copy to the host", lambda: pinned.copy_(there, non_blocking=True)),
    ):
        result.record(name, f"{size / seconds_per_call(copy, 10) / 1e9:.1f} GB/s")


def _measure_products(device: torch.device, result: Result, *, size: int) -> None:
    left = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    seconds = seconds_per_call(lambda: left @ left, 20)
    result.record("bfloat16 product", f"{2 * size**3 / seconds / 1e12:.1f} TFLOP/s")
