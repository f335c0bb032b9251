"""Start the processes of a run by fork, so that they see what a test has patched."""

import functools
import signal

import ember_reid.engine.run.launch as launching
import ignite.distributed as idist
import pytest
import torch


def fork_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the start method of `launching` by fork until the test ends."""

    def work(*args) -> None:
        # After a fork, the threads of the parent do not exist, but its handlers do.
        torch.set_num_threads(1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        original(*args)

    original = launching.work
    monkeypatch.setattr(launching, "work", work)
    monkeypatch.setattr(
        launching.idist, "spawn", functools.partial(idist.spawn, start_method="fork")
    )
