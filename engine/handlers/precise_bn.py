"""Batch-norm statistics for the final weights."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import cast

import ignite.distributed as idist
import torch
from ember_reid.data.batch import Selection
from ember_reid.data.dataset import ReidDataset
from ember_reid.engine.distributed import average
from ember_reid.engine.events import epoch_sampler
from ember_reid.engine.handlers.batch import iteration_seed
from ember_reid.modeling.mixstyle import mixing_disabled
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader


class PreciseBN:
    """Recomputes batch-norm statistics over training batches, before the last evaluation.

    Running statistics are averages over earlier weights. Here they are replaced by the mean over
    `num_batches` augmented batches (Wu and Johnson 2021, arXiv 2105.07576, section 3) and over all
    processes. Random numbers depend on the seed only, so repeating it gives the same statistics.
    MixStyle is off, as in evaluation.

    Args:
        num_batches: 0 disables it.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: DataLoader,
        augmentation: Callable[..., Tensor],
        *,
        num_batches: int,
        device: torch.device,
        seed: int,
    ):
        self.model, self.loader, self.augmentation = model, loader, augmentation
        self.num_batches, self.device, self.seed = num_batches, device, seed

    def __call__(self) -> None:
        if self.num_batches == 0:
            return
        # Training starts at epoch 1, so epoch 0 has different batches.
        epoch_sampler(self.loader).set_epoch(0)
        with mixing_disabled(self.model):
            update_bn(self._images(), self.model, device=self.device)
        if idist.get_world_size() > 1:
            for name, statistic in self.model.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    average(statistic)

    def _images(self) -> Iterable[Tensor]:
        for number, batch in enumerate(islice(self.loader, self.num_batches)):
            generator = torch.Generator().manual_seed(
                iteration_seed(self.seed + 2, number, idist.get_rank())
            )
            if isinstance(batch, Selection):
                batch = cast(ReidDataset, self.loader.dataset).gather(batch)
            yield self.augmentation(batch.images.to(self.device), generator)
