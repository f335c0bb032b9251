"""Runs commands in this process and checks how they end: success, or one line and exit code 2."""

import contextlib
import io
import logging
import os
import resource
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch

from ember_reid import main

# Of processor time. Other processes of the machine may take most of the time that passes.
SECONDS = 20
PATIENCE = 10
EXTRA_BYTES = 3 * 2**30
# Examples by (kind of input, exit code); printed at the end of a session.
COUNTS: Counter = Counter()


class TookTooLong(BaseException):
    """A command did not end in time."""


class TrainingStarts(BaseException):
    """All checks have passed, and the training would start now."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


def run(
    command: Callable[[list[str]], int], words: Sequence[str], *, seconds: float = SECONDS
) -> Outcome:
    """Call the `main` function of a command with limits on time and memory.

    Raises:
        TookTooLong: it took more than `seconds` of processor time, or much more time than that.
    """
    streams = [
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors, write_through=True)
        for errors in ("strict", "backslashreplace")
    ]
    with (
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
        _restored_globals(),
        _time_limit(seconds),
        _memory_limit(EXTRA_BYTES),
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", UserWarning)
        try:
            code = command(list(words))
        except TrainingStarts:
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    out, err = (stream.buffer.getvalue().decode("utf-8", "replace") for stream in streams)
    # Outside of pytest, warnings are lines on standard error.
    return Outcome(code, out, err + "".join(f"{warning.message}\n" for warning in warned))


def check(
    kind: str,
    command: Callable[[list[str]], int],
    words: Sequence[str],
    *,
    allowed: Sequence[int] = (0, 2),
) -> Outcome:
    """Run a command and assert that it works, or gives one printable line and exit code 2.

    Args:
        kind: kind of input, under which the example is counted.
        allowed: exit codes.
    """
    outcome = run(command, words)
    COUNTS[kind, outcome.code] += 1
    lines = outcome.err.splitlines()
    assert outcome.code in allowed, f"exit code {outcome.code}: {outcome.err}"
    if outcome.code:
        assert len(lines) == 1, f"{len(lines)} lines: {outcome.err}"
        assert len(outcome.err) < 10_000, f"{len(outcome.err)} characters"
    assert "Traceback" not in outcome.err
    assert all(line.isprintable() for line in lines), f"control characters: {outcome.err!r}"
    assert "\x1b" not in outcome.out
    return outcome


def check_training(kind: str, words: Sequence[str]) -> Outcome:
    """`check` for main.py up to the start of the training; nothing may be written before that."""
    with mock.patch.object(main, "start_output", _stop_before_training):
        return check(kind, main.main, words)


def _stop_before_training(*args: object, **kwargs: object) -> None:
    raise TrainingStarts


def _call_in_this_process(function: Callable, *args: object, **kwargs: object) -> object:
    return function(*args)


def _start_no_processes(*args: object, **kwargs: object) -> None:
    raise ValueError("examples start no processes")


@contextlib.contextmanager
def _restored_globals() -> Iterator[None]:
    """Undo what a command changes in its process. It cannot start threads or processes."""
    folder, path, environment = Path.cwd(), list(sys.path), dict(os.environ)
    with (
        mock.patch.object(torch, "set_num_threads"),
        mock.patch.object(torch.multiprocessing, "spawn", _start_no_processes),
        mock.patch.object(main, "launch", _call_in_this_process),
    ):
        try:
            yield
        finally:
            os.chdir(folder)
            sys.path[:] = path
            os.environ.clear()
            os.environ.update(environment)
            torch.use_deterministic_algorithms(False)
            root = logging.getLogger("ember")
            for handler in list(root.handlers):
                root.removeHandler(handler)
                handler.close()


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TookTooLong(f"more than {seconds} s")

    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, seconds),
        signal.SIGALRM: (signal.ITIMER_REAL, seconds * PATIENCE),
    }
    previous = {number: signal.signal(number, stop) for number in timers}
    for timer, limit in timers.values():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, previous[number])


@contextlib.contextmanager
def _memory_limit(extra: int) -> Iterator[None]:
    """Let this process map at most `extra` bytes more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    previous, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + extra, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (previous, hard))
