"""Start the processes of a run, forward signals to them, and report their errors."""

import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ember_reid.data.images import num_cpus
from ember_reid.engine.handlers.safety import (
    STOP_SIGNALS,
    Interrupted,
    describe_error,
    explain_failure,
)
from ember_reid.engine.run.cluster import changed_environment, process_variables
from torch.multiprocessing.spawn import ProcessExitedException

# Exit code after an error that the user can fix.
USER_ERROR = 2
# Processes may share a core, as in tests.
MIN_ALLOWED_PROCESSES = 8
USER_ERRORS = (ValueError, OSError, ModuleNotFoundError)


class ProcessKilled(ChildProcessError):
    """A process of the run was killed by a signal."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def max_processes(num_gpus: int) -> int:
    """The number of processes that a command may start on this machine."""
    return max(num_gpus, MIN_ALLOWED_PROCESSES, num_cpus())


def check_num_processes(num_processes: int, *, num_gpus: int, batch_size: int) -> None:
    """Check the number of new processes before any of them is started.

    Args:
        num_gpus: GPUs that the run uses; 0 on the CPU.

    Raises:
        ValueError: the batch cannot be divided, or the machine is too small.
    """
    if 0 < num_gpus < num_processes:
        raise ValueError(
            f"NUM_PROCESSES is {num_processes}, but {num_gpus} GPU(s) are visible, and two "
            "processes cannot share one: use one process per GPU, or DEVICE cpu"
        )
    most = max_processes(num_gpus)
    if num_processes > most:
        raise ValueError(
            f"NUM_PROCESSES is {num_processes}, this machine has {num_cpus()} processor cores and "
            f"{num_gpus} GPUs: use at most {most}"
        )
    if batch_size % num_processes:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH {batch_size} cannot be divided equally among {num_processes} "
            "processes (NUM_PROCESSES, by default one per GPU)"
        )


def launch(function: Callable[..., Any], *args: object, num_processes: int, use_cuda: bool) -> Any:
    """Call `function(*args)` in each process of the run; return the result of rank 0.

    The processes are those that torchrun or srun started, or else `num_processes` new ones on this
    machine, or this one.

    Args:
        function: at module level. With several new processes, its result must be JSON-serializable.

    Raises:
        ValueError, OSError, ModuleNotFoundError, Interrupted: as raised by the first process that
            failed.
        ProcessKilled: a process was killed.
    """
    backend = "nccl" if use_cuda else "gloo"
    variables = process_variables(use_cuda=use_cuda)
    is_started = "WORLD_SIZE" in os.environ or "WORLD_SIZE" in variables
    if num_processes == 1 and not is_started:
        return function(*args)
    with changed_environment(variables):
        if not is_started:
            return _spawn(function, args, num_processes, backend)
        with explain_failures("the processes of this run"):
            idist.initialize(backend)
        result = function(*args)
        idist.finalize()
        return result


def _spawn(
    function: Callable[..., Any], args: tuple[object, ...], num_processes: int, backend: str
) -> Any:
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    if "lo" in (name for _, name in socket.if_nameindex()):
        # Listen on loopback only.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder, _signals_passed_on():
        try:
            # The processes find each other through a file instead of an open port.
            idist.spawn(
                backend,
                work,
                args=(folder, function, args),
                nproc_per_node=num_processes,
                init_method=f"file://{folder}/rendezvous",
            )
        except ProcessExitedException as error:
            _raise_failure(Path(folder), error)
        return json.loads((Path(folder) / "result.json").read_text(encoding="utf-8"))


def work(
    local_rank: int, folder: str, function: Callable[..., Any], args: tuple[object, ...]
) -> None:
    """One of several new processes. Its result or error is written to `folder`."""
    try:
        result = function(*args)
    except Interrupted as error:
        _end(folder, error.exit_code, {"signal": int(error.signal_number)})
    except KeyboardInterrupt:
        _end(folder, 128 + signal.SIGINT, {"signal": 0})
    except USER_ERRORS as error:
        if idist.get_rank() > 0:
            # Errors common to all ranks are reported by rank 0 only: its exit ends this process.
            time.sleep(3)
        kind = next(kind for kind in USER_ERRORS if isinstance(error, kind))
        prefix = f"rank {idist.get_rank()}: " if idist.get_rank() else ""
        details = traceback.format_exc()
        message = prefix + describe_error(error)
        _end(folder, USER_ERROR, {"kind": kind.__name__, "message": message, "details": details})
    if idist.get_rank() == 0:
        Path(folder, "result.json").write_text(json.dumps(result), encoding="utf-8")


def _end(folder: str, exit_code: int, failure: dict[str, Any]) -> None:
    """Record why this process ends, and exit without waiting for the others."""
    path = Path(folder, f"failure-{idist.get_local_rank()}.json")
    path.write_text(json.dumps(failure), encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _raise_failure(folder: Path, error: ProcessExitedException) -> None:
    """Raise the error of the process that ended first."""
    record = folder / f"failure-{error.error_index}.json"
    if error.exit_code < 0 or not record.is_file():
        code = error.exit_code if error.exit_code >= 0 else 128 - error.exit_code
        how = f"killed by {error.signal_name}" if error.exit_code < 0 else f"ended with code {code}"
        raise ProcessKilled(
            f"process {error.error_index} was {how}; continue with --resume", code
        ) from None
    failure = json.loads(record.read_text(encoding="utf-8"))
    if "signal" in failure:
        raise Interrupted(failure["signal"]) if failure["signal"] else KeyboardInterrupt
    kind = next(kind for kind in USER_ERRORS if kind.__name__ == failure["kind"])
    raise kind(failure["message"]) from ChildProcessError(failure["details"])


@contextmanager
def _signals_passed_on() -> Iterator[None]:
    """Send SIGINT, SIGTERM and SIGHUP to the child processes, which save and exit."""

    def pass_on(number: int, _frame: object) -> None:
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, number)

    previous = {number: signal.signal(number, pass_on) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def report_errors(action: Callable[[], object], *, program: str, debug: bool = False) -> int:
    """Run `action`; print one line to standard error for an error that the user can fix.

    Args:
        program: the name at the start of the line.
        debug: print the traceback as well.

    Returns:
        The exit code.
    """
    try:
        action()
    except Interrupted as stopped:
        _print_error(program, f"{stopped}; continue with --resume")
        return _exit_code(stopped.exit_code)
    except KeyboardInterrupt:
        _print_error(program, "stopped immediately")
        return _exit_code(128 + signal.SIGINT)
    except USER_ERRORS as error:
        if idist.get_rank() > 0:
            # Errors common to all ranks are reported by rank 0 only.
            time.sleep(3)
        if debug:
            traceback.print_exc()
        _print_error(program, describe_error(error))
        return _exit_code(getattr(error, "exit_code", USER_ERROR))
    return 0


def _print_error(program: str, text: str) -> None:
    rank = idist.get_rank()
    sys.stderr.write(f"{program}: {f'rank {rank}: ' if rank else ''}{text}\n")


def _exit_code(code: int) -> int:
    """The code; one of several ranks exits with it, without waiting for others that may be gone."""
    if idist.get_world_size() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


@contextmanager
def explain_failures(load: str) -> Iterator[None]:
    """Convert failures of the machine, such as lack of memory, to one-line errors.

    Args:
        load: what has to fit into memory.

    Raises:
        OSError: with a line that says what to do.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        explanation = explain_failure(error, load=load)
        if not explanation:
            raise
        raise OSError(explanation) from error
