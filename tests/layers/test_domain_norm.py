"""Domain-specific batch norm, against two ordinary ones."""

import copy

import torch
from ember_reid.layers.domain_norm import separate_norms
from torch import nn


def test_the_halves_have_their_own_statistics_and_parameters():
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(16))
    model = copy.deepcopy(plain)
    norms = separate_norms(model)
    assert len(norms) == 2
    assert model.state_dict().keys() == plain.state_dict().keys()
    images = torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    labeled, unlabeled = copy.deepcopy(plain), copy.deepcopy(plain)
    expected = torch.cat((labeled(images[:4]), unlabeled(images[4:] + 2)))
    shifted = torch.cat((images[:4], images[4:] + 2))
    torch.testing.assert_close(model(shifted), expected)
    for name, value in unlabeled.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)
    torch.testing.assert_close(norms[1].running_mean, labeled[3].running_mean)
    model.eval()
    torch.testing.assert_close(model(images), unlabeled.eval()(images))
    # A copy, such as a running average, has its own batch norms.
    other = copy.deepcopy(model).train()
    other(shifted)
    torch.testing.assert_close(norms[1].running_mean, labeled[3].running_mean)
    model.train()(shifted).square().sum().backward()
    assert norms[0].weight.grad is not None
