"""Convert records to tensors: a cache of decoded images, and the dataset of a loader."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from ember_reid.data.batch import Batch, Selection
from ember_reid.data.cache import CPU
from ember_reid.data.frames import SAMPLINGS, choose_frames, choose_views
from ember_reid.data.images import (
    GIB,
    ImageError,
    broken_error,
    load_image,
    raise_broken,
    run_logged,
)
from ember_reid.data.records import UNKNOWN_VIEW, Record
from torch import Tensor
from torch.utils.data import Dataset

logger = logging.getLogger("ember.data")


@dataclass(frozen=True)
class Sample:
    """One item of a dataset; `images` is uint8 [(T,) 3, H, W]."""

    images: Tensor
    pid: int
    camid: int
    index: int
    viewid: int = UNKNOWN_VIEW


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to `device` without waiting: copies to a GPU start from pinned memory."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Normalization:
    """uint8 [..., 3, H, W] to float32 (x / 255 - mean) / std; mean, std of RGB in 0..1."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(
                f"mean and std need three values and std must be positive, not {mean} and {std}"
            )
        self.shift = 255.0 * torch.tensor(mean, dtype=torch.float32).view(3, 1, 1)
        self.scale = 1.0 / (255.0 * torch.tensor(std, dtype=torch.float32).view(3, 1, 1))

    def __call__(self, images: Tensor) -> Tensor:
        if self.shift.device != images.device:
            self.shift, self.scale = (
                upload(value, images.device) for value in (self.shift, self.scale)
            )
        return images.to(torch.float32).sub_(self.shift).mul_(self.scale)


def collate(samples: Sequence[Sample] | Batch | Selection) -> Batch | Selection:
    """Stack samples into a batch. A batch (of a dataset that fetches whole batches) is returned."""
    if isinstance(samples, (Batch, Selection)):
        return samples
    return Batch(
        images=torch.stack([sample.images for sample in samples]),
        pids=torch.tensor([sample.pid for sample in samples], dtype=torch.int64),
        camids=torch.tensor([sample.camid for sample in samples], dtype=torch.int64),
        indices=torch.tensor([sample.index for sample in samples], dtype=torch.int64),
        viewids=torch.tensor([sample.viewid for sample in samples], dtype=torch.int64),
    )


def used_paths(records: Sequence[Record], *, num_frames: int, sampling: str) -> list[Path]:
    """The files that a dataset with these settings may load; some may be repeated."""
    if sampling != "even" or max((len(record.paths) for record in records), default=1) == 1:
        return [path for record in records for path in record.paths]
    return [
        r.paths[i]
        for r in records
        for i in sorted(set(choose_frames(len(r.paths), num_frames).tolist()))
    ]


class ImageCache:
    """All images of a dataset, decoded once into one uint8 tensor [N, 3, H, W] on a device.

    A batch is one gather. On a CPU, the tensor is in ordinary memory, because shared memory may be
    as small as 64 MiB in a container. A loader with a cache has no processes.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        size: tuple[int, int],
        interpolation: str = "bilinear",
        device: torch.device = CPU,
    ) -> None:
        """Decode `paths` with one thread per CPU (Pillow releases the interpreter lock).

        Raises:
            ImageError: files that cannot be decoded.
        """
        self.rows = {path: row for row, path in enumerate(dict.fromkeys(paths))}
        self.images = torch.empty((len(self.rows), 3, *size), dtype=torch.uint8, device=device)
        broken: dict[int, str] = {}

        def decode(item: tuple[Path, int]) -> None:
            path, row = item
            try:
                self.images[row] = load_image(path, size=size, interpolation=interpolation)
            except ImageError as error:
                broken[row] = str(error)

        started = time.perf_counter()
        run_logged(decode, list(self.rows.items()))
        raise_broken([broken[row] for row in sorted(broken)])
        seconds = max(time.perf_counter() - started, 1e-9)
        logger.info(
            "cached %d images at %d x %d on %s: %.2f GiB in %.1f s (%.0f images/s)",
            len(self.rows),
            *size,
            self.images.device,
            self.images.nbytes / GIB,
            seconds,
            len(self.rows) / seconds,
        )

    @property
    def device(self) -> torch.device:
        return self.images.device

    def find(self, paths: Sequence[Path]) -> Tensor:
        """The rows of `paths`, int64 [len(paths)] on the CPU."""
        return torch.tensor([self.rows[path] for path in paths], dtype=torch.int64)


def gather_images(images: Tensor, rows: Tensor) -> Tensor:
    """The images of a cache [M, 3, H, W] for rows [...] on the CPU: [..., 3, H, W]."""
    gathered = images.index_select(0, upload(rows.flatten(), images.device))
    return gathered.view(*rows.shape, *images.shape[1:])


class ReidDataset(Dataset):
    """Records as tensors: item i is record i as a `Sample`, a list of items is a `Batch`.

    With `num_frames` 1 a sample is one image, uint8 [3, H, W]; otherwise a clip, uint8
    [T, 3, H, W]. `sampling` chooses its frames: "even" (the first of each chunk), "chunk" (a random
    one of each chunk), "multiview" (random frames of random records of the same identity) or
    "multiview-cameras" (the same, with cameras in turn).

    Random choices depend on (seed, epoch, index, how often the index occurred before in the batch),
    not on workers or global random state. `epoch` is an int64 [1] tensor in shared memory, so that
    loader processes see its changes; the training samplers own one.

    Batches are on the device of the `cache`, or on the CPU without one.

    Attributes:
        selects_only: with a cache, a list of items is a `Selection` instead.
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        size: tuple[int, int],
        interpolation: str = "bilinear",
        num_frames: int = 1,
        sampling: str = "even",
        cache: ImageCache | None = None,
        seed: int = 0,
        epoch: Tensor | None = None,
    ) -> None:
        """Raise ValueError for an unknown sampling or fewer than one frame.

        Args:
            records: the items.
            size: (H, W).
            interpolation: bilinear or bicubic.
            num_frames: T.
            sampling: see above.
            cache: decoded images; without one, files are decoded when they are used.
            seed: of the random choices.
            epoch: see above.
        """
        if sampling not in SAMPLINGS:
            raise ValueError(
                f'INPUT.FRAME_SAMPLING is "{sampling}"; choose one of {", ".join(SAMPLINGS)}'
            )
        if num_frames < 1:
            raise ValueError(f"INPUT.NUM_FRAMES is {num_frames}; a sample needs at least one frame")
        self.records = tuple(records)
        self.size = size
        self.interpolation = interpolation
        self.num_frames = num_frames
        self.sampling = sampling
        self.cache = cache
        self.seed = seed
        self.epoch = torch.zeros(1, dtype=torch.int64) if epoch is None else epoch
        self.device = torch.device("cpu") if cache is None else cache.device
        self.selects_only = False
        # [records, 3], pids, camids and viewids, in shared memory: `set_pids` also changes what the
        # processes of a loader read.
        labels = [(record.pid, record.camid, record.viewid) for record in self.records]
        self._labels = torch.tensor(labels, dtype=torch.int64).view(-1, 3).share_memory_()
        self.pids, self.camids, self.viewids = self._labels.to(self.device).unbind(1)
        self._records_by_pid: dict[int, list[Record]] = {}
        if sampling.startswith("multiview"):
            for record in self.records:
                self._records_by_pid.setdefault(record.pid, []).append(record)
        self._row_of_record = self._find_single_images()

    def _find_single_images(self) -> Tensor | None:
        """The row of each record, [records], if no choice of frames is needed and all are cached.

        A process that tests a part of the records caches only these.
        """
        is_single = self.num_frames == 1 and all(len(r.paths) == 1 for r in self.records)
        if self.cache is None or not is_single or self._records_by_pid:
            return None
        paths = [record.paths[0] for record in self.records]
        return self.cache.find(paths) if all(path in self.cache.rows for path in paths) else None

    def set_pids(self, pids: Tensor) -> None:
        """Replace the labels of all records, int64 [records]; batches that are loaded later have
        them."""
        self._labels[:, 0] = pids
        self.pids.copy_(pids)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        batch = self._load([index])
        record = self.records[index]
        return Sample(batch.images[0], record.pid, record.camid, index, record.viewid)

    def __getitems__(self, indices: Sequence[int]) -> Batch | Selection:
        """Load a whole batch, or only its rows in the cache."""
        is_selection = self.selects_only and self.cache is not None
        return self.select(indices) if is_selection else self._load(indices)

    def select(self, indices: Sequence[int]) -> Selection:
        """The rows of the cache that make up a batch, and its labels."""
        where = torch.tensor(list(indices), dtype=torch.int64)
        pids, camids, viewids = self._labels[where].unbind(1)
        return Selection(self._find_rows(indices, where), pids, camids, where, viewids)

    def gather(self, selection: Selection) -> Batch:
        """The batch of a selection, on the device of the cache."""
        cache = cast(ImageCache, self.cache)
        where = upload(selection.indices, self.device)
        images = gather_images(cache.images, selection.rows)
        return self._label(images, where)

    def _label(self, images: Tensor, where: Tensor) -> Batch:
        """A batch of the records `where`, on their device."""
        labels = self.pids[where], self.camids[where]
        return Batch(images, *labels, indices=where, viewids=self.viewids[where])

    def _load(self, indices: Sequence[int]) -> Batch:
        """A whole batch: one gather from the cache, or file by file."""
        if self.cache is not None:
            return self.gather(self.select(indices))
        images = torch.stack([self._decode(path) for path in self._choose_all(indices)])
        if self.num_frames > 1:
            # [B * T, 3, H, W] -> [B, T, 3, H, W]
            images = images.unflatten(0, (len(indices), self.num_frames))
        where = torch.tensor(list(indices), dtype=torch.int64)
        return self._label(images, where)

    def _find_rows(self, indices: Sequence[int], where: Tensor) -> Tensor:
        """The rows of the cache, [B] or [B, T]; `where` are the indices as a tensor."""
        if self._row_of_record is not None:
            return self._row_of_record[where]
        rows = cast(ImageCache, self.cache).find(self._choose_all(indices))
        return rows.view(-1, self.num_frames) if self.num_frames > 1 else rows

    def _choose_all(self, indices: Sequence[int]) -> list[Path]:
        """The files of all items, in their order."""
        seen: Counter[int] = Counter()
        paths: list[Path] = []
        for index in indices:
            paths.extend(self._choose(index, seen[index]))
            seen[index] += 1
        return paths

    def _decode(self, path: Path) -> Tensor:
        try:
            return load_image(path, size=self.size, interpolation=self.interpolation)
        except ImageError as error:
            raise broken_error(str(error)) from None

    def _choose(self, index: int, occurrence: int) -> Sequence[Path]:
        """The `num_frames` files of a record."""
        record = self.records[index]
        if len(record.paths) == 1 and not self._records_by_pid:
            return record.paths * self.num_frames
        if self.sampling == "even":
            return [record.paths[i] for i in choose_frames(len(record.paths), self.num_frames)]
        rng = np.random.default_rng([self.seed, int(self.epoch), index, occurrence])
        if self.sampling == "chunk":
            return [record.paths[i] for i in choose_frames(len(record.paths), self.num_frames, rng)]
        return choose_views(
            self._records_by_pid[record.pid],
            self.num_frames,
            rng,
            spread_cameras=self.sampling == "multiview-cameras",
        )
