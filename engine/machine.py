"""Choose the precision and the number of threads of a CPU.

The precision of mixed precision follows from the instruction set: torch reports bfloat16 as
supported on every processor with AVX-512, but without instructions for it, oneDNN emulates it, and
training takes twice as long as in float32.
"""

import os
import re
from pathlib import Path

import torch
from ember_reid.data.images import num_cpus

# If this variable is not 0, the machine behaves like one without bfloat16 instructions.
NO_BF16 = "EMBER_REID_NO_BF16"
PROCESSORS = Path("/proc/cpuinfo")
# Linux' names of the instructions, on x86-64 and on Arm.
BF16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")


def find_bf16_instructions() -> str:
    """The instructions of this processor for products of bfloat16 matrices; "" if it has none."""
    is_disabled = os.environ.get(NO_BF16, "0") not in ("", "0")
    if is_disabled or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return ""
    try:
        text = PROCESSORS.read_text(errors="replace")
    except OSError:
        return ""
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = set(lines[0].split()) if lines else set()
    return next((flag for flag in BF16_FLAGS if flag in flags), "")


def choose_cpu_precision(requested: str) -> str:
    """`float32` or `bfloat16`, whichever is faster on this processor, unless one is requested.

    Args:
        requested: SOLVER.CPU_PRECISION.
    """
    if requested != "auto":
        return requested
    return "bfloat16" if find_bf16_instructions() else "float32"


def describe_cpu_precision(chosen: str) -> str:
    """Describe a precision and the processor's support for it, for logs and environment.json."""
    found = find_bf16_instructions()
    return f"{chosen} ({f'the processor has {found}' if found else 'no bfloat16 instructions'})"


def choose_num_threads(requested: int, num_processes: int = 1) -> int:
    """The CPU threads of each process of this machine.

    A single process uses those of torch (one per physical core, or OMP_NUM_THREADS), but at most
    the CPUs that it may use: torch does not know the quota of a container.

    Args:
        requested: NUM_THREADS; 0 to choose.
    """
    if requested:
        return requested
    if num_processes > 1:
        return max(1, num_cpus() // num_processes)
    return min(torch.get_num_threads(), num_cpus())


def limit_threads() -> None:
    """Give torch no more threads than there are CPUs for this process."""
    threads = choose_num_threads(0)
    if threads < torch.get_num_threads():
        torch.set_num_threads(threads)
