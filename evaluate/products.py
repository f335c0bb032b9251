"""The fastest float32 matrix product on this machine, chosen among the libraries by a short measurement.

On a CPU the libraries differ by more than two (MKL inside `torch.mm` leaves AVX-512 unused on AMD, OpenBLAS
inside numpy and oneDNN inside torch do not), and which one wins depends on the processor, so it is measured
once a process.
Letters: m rows, n columns, D dimensions.
"""

import logging
import time
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import torch

logger = logging.getLogger("ember.evaluate")

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
WORTH_MEASURING = 5e10  # floating point operations; below, any library is done in an instant
_chosen: dict[int, str] = {}  # by number of threads


def product_torch(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """[m, D] x [n, D] -> [m, n] by torch (MKL on most CPUs, cuBLAS on a GPU)."""
    return left @ right.t()


def product_numpy(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The same by numpy (OpenBLAS in the usual wheels)."""
    return torch.from_numpy(np.matmul(left.numpy(), right.numpy().T))


def product_onednn(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The same by oneDNN, through the operator that torch's compiler uses for linear layers."""
    return torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")


PRODUCTS: dict[str, Product] = {"torch": product_torch, "numpy": product_numpy, "onednn": product_onednn}


def choose_product(device: torch.device, work: float) -> Product:
    """The product to use on a device for about `work` floating point operations."""
    if device.type != "cpu" or work < WORTH_MEASURING:
        return product_torch
    threads = torch.get_num_threads()
    if threads not in _chosen:
        speeds = {name: _speed(product) for name, product in PRODUCTS.items()}
        _chosen[threads] = max(speeds, key=speeds.get)
        listed = ", ".join(f"{name} {speed / 1e9:.0f}" for name, speed in speeds.items() if speed)
        logger.info("matrix product by %s (GFLOP/s on %d threads: %s)", _chosen[threads], threads, listed)
    return PRODUCTS[_chosen[threads]]


def _speed(
    product: Product, rows: int = 256, columns: int = 1024, dims: int = 2048, repeats: int = 3
) -> float:
    """Operations per second of one product, the best of a few runs; 0 where the library cannot do it."""
    left, right = torch.full((rows, dims), 0.5), torch.full((columns, dims), 0.25)
    best = float("inf")
    try:
        if float(product(left, right)[0, 0]) != 0.125 * dims:
            return 0.0
        for _ in range(repeats):
            start = time.perf_counter()
            product(left, right)
            best = min(best, time.perf_counter() - start)
    except (RuntimeError, AttributeError, NotImplementedError):  # this build of torch has no such operator
        return 0.0
    return 2.0 * rows * columns * dims / best


@contextmanager
def full_precision():
    """Products in true float32: the shortened mantissas of TF32 and bfloat16 swap near neighbours."""
    libraries = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    previous = [library.fp32_precision for library in libraries]
    for library in libraries:
        library.fp32_precision = "ieee"
    try:
        yield
    finally:
        for library, precision in zip(libraries, previous, strict=True):
            library.fp32_precision = precision
