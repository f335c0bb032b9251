"""Batch-norm statistics of the last weights."""

from collections.abc import Callable, Iterable
from itertools import islice

import ignite.distributed as idist
import torch
from ember_reid.engine.handlers.batch import iteration_seed
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn


class PreciseNorm:
    """Before the last evaluation: statistics become means over training batches, all seen with the last weights.

    Running statistics are averages over weights that training has left behind. Here the model's are replaced by the mean
    over `num_batches` augmented batches (Wu and Johnson 2021, arXiv 2105.07576, section 3), over all processes. The draws
    follow from the seed, so doing it again gives the same numbers.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable,
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
        self.loader.batch_sampler.set_epoch(0)  # training counts its epochs from 1
        update_bn(self._images(), self.model, device=self.device)
        if idist.get_world_size() > 1:
            for name, statistic in self.model.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    idist.all_reduce(statistic)
                    statistic /= idist.get_world_size()

    def _images(self) -> Iterable[Tensor]:
        for number, batch in enumerate(islice(self.loader, self.num_batches)):
            generator = torch.Generator().manual_seed(
                iteration_seed(self.seed + 2, number, idist.get_rank())
            )
            yield self.augmentation(batch.images.to(self.device), generator)
