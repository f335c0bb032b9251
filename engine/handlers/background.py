"""Run a metric writer in a thread, so that an optional service cannot disturb the training."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping

import numpy as np
from ember_reid.engine.handlers.writers import MetricWriter

logger = logging.getLogger("ember.train")

# Maximum number of queued entries; further ones are dropped.
QUEUE_SIZE = 1000
# Maximum number of queued images, each of which can be several megabytes.
MAX_IMAGES = 4
# Maximum seconds that the end of a run waits for the last entries.
CLOSE_TIMEOUT = 10.0


class BackgroundWriter(MetricWriter):
    """Forwards all calls to another writer in a daemon thread.

    Wrap every writer that uses a network, a library with threads of its own, or anything else that
    may fail or hang. The training never waits for it: the queue is bounded, and entries that do not
    fit are dropped. An error ends the writer, not the run. Each problem gives one warning.

    Args:
        writer: its methods are called in the thread only, except `load`.
        name: for warnings, such as "Visdom".
        finish_timeout: seconds that the end of a run waits for the writer's `close`, which may
            upload files. It waits only if all entries were accepted within `close_timeout`.
    """

    def __init__(
        self,
        writer: MetricWriter,
        name: str,
        *,
        queue_size: int = QUEUE_SIZE,
        close_timeout: float = CLOSE_TIMEOUT,
        finish_timeout: float = CLOSE_TIMEOUT,
    ):
        self.writer, self.name = writer, name
        self.close_timeout, self.finish_timeout = close_timeout, finish_timeout
        self.num_dropped = 0
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(queue_size)
        self._free_images = threading.Semaphore(MAX_IMAGES)
        self._failed, self._is_drained = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def accepts_images(self) -> bool:  # type: ignore[override]
        return self.writer.accepts_images and not self._failed.is_set()

    def open(self, *, resumed_iteration: int | None = None) -> None:
        # In this thread, because loader processes must not be forked while another thread imports.
        self._attempt(self.writer.load)
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()
        self._put(lambda: self.writer.open(resumed_iteration=resumed_iteration))

    def write(self, source: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        copied = dict(values)
        self._put(lambda: self.writer.write(source, epoch, iteration, copied))

    def write_image(self, title: str, iteration: int, image: np.ndarray) -> None:
        def write() -> None:
            self._free_images.release()
            self.writer.write_image(title, iteration, image)

        if self._free_images.acquire(blocking=False):
            self._put(write)
        else:
            self._drop()

    def close(self) -> None:
        """Wait for the last entries and for the writer to close, both for a limited time."""
        if self._thread is None:
            return
        deadline = time.monotonic() + self.close_timeout
        try:
            self._queue.put(None, timeout=self.close_timeout)
        except queue.Full:
            pass
        if self._is_drained.wait(max(0.0, deadline - time.monotonic())):
            self._thread.join(self.finish_timeout)
        if self._thread.is_alive():
            logger.warning("%s does not respond; its last entries are lost", self.name)
            self._failed.set()

    def _put(self, action: Callable[[], None]) -> None:
        if self._failed.is_set():
            return
        try:
            self._queue.put_nowait(action)
        except queue.Full:
            self._drop()

    def _drop(self) -> None:
        self.num_dropped += 1
        if self.num_dropped == 1 and not self._failed.is_set():
            logger.warning("%s is too slow; entries that do not fit are dropped", self.name)

    def _run(self) -> None:
        while (action := self._queue.get()) is not None:
            self._attempt(action)
        self._is_drained.set()
        self._attempt(self.writer.close)

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._failed.is_set():
            return
        try:
            action()
        # A service can fail in any way, and some libraries raise SystemExit.
        except (Exception, SystemExit) as error:
            if self._failed.is_set():
                return
            self._failed.set()
            reason = " ".join(str(error).split()) or type(error).__name__
            logger.warning(
                "%s failed and is no longer used; the training continues: %.200s",
                self.name,
                reason,
            )
