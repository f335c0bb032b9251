"""The fastest matrix product on this machine, chosen among the libraries by a short measurement.

On a CPU the libraries differ by more than two (MKL inside `torch.mm` leaves AVX-512 unused on AMD, OpenBLAS
inside numpy and oneDNN inside torch do not), and which one wins depends on the processor, so it is measured
once a process; so is the product of eight-bit whole numbers, which some processors make several times faster.
Letters: m rows, n columns, D dimensions.
"""

import logging
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

logger = logging.getLogger("ember.evaluate")

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
WORTH_MEASURING = 5e10  # floating point operations; below, any library is done in an instant
# how much faster than floats whole numbers must be, as what they find is measured once more
WORTH_CODING = 1.5


class Choice(NamedTuple):
    """What was measured."""

    name: str  # the fastest product of float32
    integers: bool  # whether those of whole numbers are so much faster


_chosen: dict[int, Choice] = {}  # by number of threads


def product_torch(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """[m, D] x [n, D] -> [m, n] by torch (MKL on most CPUs, cuBLAS on a GPU)."""
    return left @ right.t()


def product_numpy(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The same by numpy (OpenBLAS in the usual wheels)."""
    return torch.from_numpy(np.matmul(left.numpy(), right.numpy().T))


def product_onednn(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The same by oneDNN, through the operator that torch's compiler uses for linear layers."""
    return torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")


def product_integers(
    left: torch.Tensor, right: torch.Tensor, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """int8 [m, D] x [n, D] -> int32 [m, n], without rounding (oneDNN on most CPUs)."""
    return torch._int_mm(left, right.t(), out=out)


PRODUCTS: dict[str, Product] = {
    "torch": product_torch,
    "numpy": product_numpy,
    "onednn": product_onednn,
}


def choose_product(device: torch.device, work: float) -> Product:
    """The product of float32 to use on a device for about `work` floating point operations."""
    if device.type != "cpu" or work < WORTH_MEASURING:
        return product_torch
    return PRODUCTS[_measured().name]


def prefer_integers(device: torch.device, work: float) -> bool:
    """Whether products of whole numbers save more time than it takes to check what they find."""
    return device.type == "cpu" and work >= WORTH_MEASURING and _measured().integers


def _measured() -> Choice:
    threads = torch.get_num_threads()
    if threads not in _chosen:
        floats = torch.full((256, 2048), 0.5), torch.full((1024, 2048), 0.25)
        # the largest codes there are: some processors add pairs of products in 16 bits, which must show here
        whole = tuple(torch.full(side.shape, 127, dtype=torch.int8) for side in floats)
        out = torch.empty(256, 1024, dtype=torch.int32)
        runs = {name: partial(product, *floats) for name, product in PRODUCTS.items()}
        runs["8-bit integers"] = partial(product_integers, *whole, out=out)
        sums = dict.fromkeys(PRODUCTS, 256.0) | {"8-bit integers": 127.0**2 * 2048}
        speeds = {
            name: 2.0 * 256 * 1024 * 2048 / seconds
            for name, seconds in _seconds(runs, sums).items()
        }
        name = max(PRODUCTS, key=speeds.get)
        _chosen[threads] = Choice(name, speeds["8-bit integers"] > WORTH_CODING * speeds[name])
        listed = ", ".join(f"{name} {speed / 1e9:.0f}" for name, speed in speeds.items() if speed)
        logger.info("matrix product by %s (GFLOP/s on %d threads: %s)", name, threads, listed)
    return _chosen[threads]


def _seconds(
    runs: dict[str, Callable], sums: dict[str, float], repeats: int = 6
) -> dict[str, float]:
    """The shortest time of each product, taken in turns; infinite where a library cannot do it, or not exactly."""
    best = dict.fromkeys(runs, float("inf"))
    able = dict(runs)
    for _ in range(repeats):
        for name, run in list(able.items()):
            start = time.perf_counter()
            try:
                result = float(run()[0, 0])
            except (
                RuntimeError,
                AttributeError,
                NotImplementedError,
            ):  # not in this build of torch
                result = float("nan")
            best[name] = min(best[name], time.perf_counter() - start)
            if result != sums[name]:
                best[name] = float("inf")
            if best[name] > 0.5:  # impossible, or by a fallback in plain loops
                del able[name]
    return best


@contextmanager
def full_precision():
    """Products in true float32: the shortened mantissas of TF32 and bfloat16 swap near neighbors."""
    libraries = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    previous = [library.fp32_precision for library in libraries]
    for library in libraries:
        library.fp32_precision = "ieee"
    try:
        yield
    finally:
        for library, precision in zip(libraries, previous, strict=True):
            library.fp32_precision = precision
