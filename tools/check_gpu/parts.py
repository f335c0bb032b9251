"""The parts of a check, each in a process of its own with a limited time."""

import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ember_reid.tools.check_gpu.results import Result, load, save


@dataclass(frozen=True)
class Part:
    """A part of the check.

    Attributes:
        title: heading of its results.
        limit: seconds after which it is stopped.
    """

    title: str
    limit: float


# In this order: the largest risks first. Each name is a module with the function `check`.
PARTS = {
    "machine": Part("Machine", 60),
    "recipes": Part("Small trainings", 100),
    "parity": Part("Equal results", 110),
    "waiting": Part("Waiting", 60),
    "evaluation": Part("Evaluation", 60),
    "speed": Part("Speed", 170),
    "resources": Part("Memory and processes", 90),
}
# Seconds for all parts together.
TOTAL_LIMIT = 480.0


def run_part(name: str, folder: Path, *, rehearse: bool, limit: float) -> Result:
    """Run a part in a new process and return what it has found, also if it fails.

    Args:
        folder: receives NAME.json, and the output of the process in NAME.log.
        rehearse: on the CPU, with tiny sizes, in a forked process, which starts faster. A process
            that uses CUDA cannot be forked.
        limit: seconds after which the process and its children are killed.
    """
    path = folder / f"{name}.json"
    if rehearse:
        # Forked processes need not import it again.
        import_module(f"ember_reid.tools.check_gpu.{name}")
    path.unlink(missing_ok=True)
    started = time.monotonic()
    context: Any = multiprocessing.get_context("fork" if rehearse else "spawn")
    process = context.Process(target=_work, args=(name, path, rehearse))
    process.start()
    process.join(limit)
    error = ""
    if process.is_alive():
        with suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()
        error = f"stopped after {limit:.0f} s"
    try:
        result = load(path)
    except (OSError, ValueError, KeyError):
        result = Result(name)
        error = error or f"its process ended with code {process.exitcode}"
    result.error = result.error or error
    result.seconds = time.monotonic() - started
    save(path, result)
    return result


def _work(name: str, path: Path, rehearse: bool) -> None:
    """The process of a part. It leads a process group, so that its children end with it."""
    os.setpgrp()
    log = os.open(path.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    result = Result(name)
    with tempfile.TemporaryDirectory() as folder:
        try:
            _check(name, Path(folder), result, rehearse)
        except (Exception, SystemExit) as error:
            result.error = f"{type(error).__name__}: {error}"[:600]
            traceback.print_exc()
        finally:
            save(path, result)


def _check(name: str, folder: Path, result: Result, rehearse: bool) -> None:
    from ember_reid.tools.check_gpu.setting import Setting

    setting = Setting(folder, device="cpu" if rehearse else "cuda", rehearse=rehearse)
    import_module(f"ember_reid.tools.check_gpu.{name}").check(setting, result)
