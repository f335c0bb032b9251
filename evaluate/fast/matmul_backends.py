"""The fastest matrix product on this machine, chosen by a short measurement.

On a CPU the libraries differ by a factor of more than two (MKL in `torch.mm` does not use AVX-512
on AMD processors, OpenBLAS in numpy and oneDNN in torch do), and the fastest one depends on the
processor. They are therefore timed once per process, together with the product of 8-bit integers,
which is several times faster on some processors.
Letters: m rows, n columns, D dimensions.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

logger = logging.getLogger("ember.evaluate")

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# Floating-point operations. With fewer, every library is fast enough.
WORTH_MEASURING = 5e10
# Required speedup of the 8-bit product over float32, because its candidates are measured again.
MIN_INTEGER_SPEEDUP = 1.5
INTEGERS = "8-bit integers"


@dataclass(frozen=True)
class Measurement:
    """Result of the timing: the fastest float32 product, and whether 8-bit integers are faster."""

    name: str
    integers: bool


# By number of threads.
_measured: dict[int, Measurement] = {}


def product_numpy(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """[m, D] x [n, D] -> [m, n] with numpy (OpenBLAS in the usual wheels)."""
    return torch.from_numpy(np.matmul(left.numpy(), right.numpy().T))


def product_onednn(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The same with oneDNN, by the operator that torch's compiler uses for linear layers."""
    return torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")


def product_integers(
    left: torch.Tensor, right: torch.Tensor, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """int8 [m, D] x [n, D] -> int32 [m, n], without rounding (oneDNN on most CPUs)."""
    return torch._int_mm(left, right.t(), out=out)


PRODUCTS: dict[str, Product] = {
    # MKL on most CPUs, cuBLAS on a GPU.
    "torch": torch.nn.functional.linear,
    "numpy": product_numpy,
    "onednn": product_onednn,
}


def fastest_product() -> Product:
    """The fastest float32 product on this CPU."""
    return PRODUCTS[measure_products().name]


def prefer_integers(device: torch.device, work: float) -> bool:
    """Whether 8-bit products save more time than measuring their candidates takes."""
    return device.type == "cpu" and work >= WORTH_MEASURING and measure_products().integers


def measure_products() -> Measurement:
    """Times all products once per process and number of threads; logs the result."""
    threads = torch.get_num_threads()
    if threads not in _measured:
        floats = torch.full((256, 2048), 0.5), torch.full((1024, 2048), 0.25)
        # The largest codes: some processors add pairs of products in 16 bits, which gives wrong
        # sums here.
        bytes_ = tuple(torch.full(side.shape, 127, dtype=torch.int8) for side in floats)
        out = torch.empty(256, 1024, dtype=torch.int32)
        runs = {name: partial(product, *floats) for name, product in PRODUCTS.items()}
        runs[INTEGERS] = partial(product_integers, *bytes_, out=out)
        sums = dict.fromkeys(PRODUCTS, 256.0) | {INTEGERS: 127.0**2 * 2048}
        work = 2.0 * 256 * 1024 * 2048
        speeds = {name: work / seconds for name, seconds in time_products(runs, sums).items()}
        fastest = max(PRODUCTS, key=lambda name: speeds[name])
        integers = speeds[INTEGERS] > MIN_INTEGER_SPEEDUP * speeds[fastest]
        _measured[threads] = Measurement(fastest, integers)
        listed = ", ".join(f"{name} {speed / 1e9:.0f}" for name, speed in speeds.items() if speed)
        logger.info("matrix product: %s (GFLOP/s on %d threads: %s)", fastest, threads, listed)
    return _measured[threads]


def time_products(
    runs: Mapping[str, Callable[[], torch.Tensor]], sums: Mapping[str, float], repeats: int = 6
) -> dict[str, float]:
    """The shortest time of each product, measured in turns.

    Infinite where a library cannot compute the product, or not exactly.

    Args:
        sums: the correct value of each product's first entry.
    """
    best = dict.fromkeys(runs, float("inf"))
    remaining = dict(runs)
    for _ in range(repeats):
        for name, run in list(remaining.items()):
            start = time.perf_counter()
            try:
                result = float(run()[0, 0])
            except (RuntimeError, AttributeError, NotImplementedError):
                # This build of torch does not have the operator.
                result = float("nan")
            best[name] = min(best[name], time.perf_counter() - start)
            if result != sums[name]:
                best[name] = float("inf")
            # Too slow: impossible, or a fallback in plain loops.
            if best[name] > 0.5:
                del remaining[name]
    return best
