"""Writing checkpoints in a thread, while the training continues."""

import copy
import logging
import threading
from pathlib import Path
from typing import Any

import torch
from ember_reid.engine.checkpoint import save_checkpoint
from torch import Tensor

logger = logging.getLogger("ember.train")


class Snapshot:
    """Copies of all tensors of a content in host memory.

    Tensors of a GPU are copied to pinned memory without waiting for the GPU. The order of its
    stream guarantees that the copies are complete before later iterations change the tensors.

    Args:
        buffers: pinned tensors of earlier snapshots by path, which are used again.
    """

    def __init__(self, content: Any, buffers: dict[str, Tensor]):
        self._buffers = buffers
        self._uses_gpu = False
        self.content = self._copy(content, "")
        self._event = torch.cuda.Event() if self._uses_gpu else None
        if self._event is not None:
            self._event.record()

    def wait(self) -> None:
        """Wait until all copies are complete."""
        if self._event is not None:
            self._event.synchronize()

    def _copy(self, content: Any, path: str) -> Any:
        if isinstance(content, Tensor):
            return self._copy_tensor(content.detach(), path)
        if isinstance(content, dict):
            # A copy keeps the type and the version numbers that torch attaches to state dicts.
            copied = copy.copy(content)
            for key, value in content.items():
                copied[key] = self._copy(value, f"{path}/{key}")
            return copied
        if isinstance(content, (list, tuple)):
            values = [self._copy(value, f"{path}/{i}") for i, value in enumerate(content)]
            return type(content)(values)
        return content

    def _copy_tensor(self, tensor: Tensor, path: str) -> Tensor:
        if not tensor.is_cuda:
            return tensor.clone()
        self._uses_gpu = True
        buffer = self._buffers.get(path)
        if buffer is None or (buffer.shape, buffer.dtype) != (tensor.shape, tensor.dtype):
            buffer = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._buffers[path] = buffer
        return buffer.copy_(tensor, non_blocking=True)


class CheckpointWriter:
    """Writes one checkpoint at a time in a thread.

    An error of the thread is raised by the next call of any method.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, path: Path, content: dict, *, previous: Path | None = None) -> None:
        """Copy the content now and write it later; see `save_checkpoint`.

        Waits for the checkpoint before, if it is not complete.
        """
        self.wait()
        snapshot = Snapshot(content, self._buffers)
        self._thread = threading.Thread(
            target=self._write, args=(path, snapshot, previous), name="checkpoint"
        )
        self._thread.start()

    def check(self) -> None:
        """Raise the error of the last checkpoint, if it failed.

        Raises:
            NonFiniteWeights, OSError: as `save_checkpoint` does.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Wait until the last checkpoint is complete, and raise its error if it failed."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        self.check()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait; an error of the thread must not hide the one that ends the block."""
        try:
            self.wait()
        except Exception as error:
            if kind is None:
                raise
            logger.warning("%s", error)

    def _write(self, path: Path, snapshot: Snapshot, previous: Path | None) -> None:
        try:
            snapshot.wait()
            save_checkpoint(path, snapshot.content, previous=previous)
        except BaseException as error:
            self._error = error
