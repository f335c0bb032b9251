"""Statistics over batches by hand, and none of the weights moved."""

import pytest
import torch
from ember_reid.data.batch import Batch
from ember_reid.engine.handlers.precise_bn import PreciseBN
from torch import nn


class Loader(list):
    """Two batches of one-pixel images: channel means 1 and 5, variances (unbiased) 2 and 8."""

    def __init__(self):
        values = torch.tensor([[0.0, 2.0], [3.0, 7.0]])
        ones = torch.zeros(2, dtype=torch.int64)
        super().__init__(Batch(row[:, None, None, None], ones, ones, ones) for row in values)
        self.batch_sampler = self
        self.epoch = None

    def set_epoch(self, epoch):
        self.epoch = epoch


def precise(model, num_batches):
    loader = Loader()
    norm = PreciseBN(
        model,
        loader,
        lambda images, generator: images,
        num_batches=num_batches,
        device=torch.device("cpu"),
        seed=1,
    )
    norm()
    return loader


def test_statistics_are_means_over_the_batches():
    model = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1)).eval()
    model[0].running_mean += 100
    loader = precise(model, 2)
    assert loader.epoch == 0
    assert model[0].running_mean.item() == pytest.approx((1 + 5) / 2)
    assert model[0].running_var.item() == pytest.approx((2 + 8) / 2)
    assert (model[0].weight.item(), model[0].momentum, model.training) == (1.0, 0.1, False)
    again = model[1].running_var.clone()
    precise(model, 2)
    assert torch.equal(model[1].running_var, again)


def test_fewer_batches_and_none():
    model = nn.BatchNorm2d(1)
    precise(model, 1)
    assert (model.running_mean.item(), model.running_var.item()) == pytest.approx((1.0, 2.0))
    precise(model, 0)
    assert model.running_mean.item() == pytest.approx(1.0)
