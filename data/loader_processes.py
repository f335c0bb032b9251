"""The processes of a loader: how they end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.data import DataLoader


@contextmanager
def loader_processes(loader: DataLoader) -> Iterator[None]:
    """Stop the processes of a training loader on exit.

    The garbage collector would take five seconds for each process.
    """
    try:
        yield
    finally:
        iterator, loader._iterator = loader._iterator, None
        shutdown = getattr(iterator, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()


def delay_signals(_worker: int) -> None:
    """Live on for ten seconds after SIGINT or SIGTERM: the main process saves a checkpoint first.

    Terminals and schedulers send these signals to all processes of a run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(10))
