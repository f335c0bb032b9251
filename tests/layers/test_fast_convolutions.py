"""Wide convolutions train in another way on a CPU; names, weights and inference stay the same."""

import copy

import pytest
import torch
from ember_reid.layers.fast_convolutions import (
    PointwiseConv2d,
    WinogradConv2d,
    use_fast_convolutions,
)
from torch import nn


@pytest.mark.parametrize(
    ("conv", "expected"),
    [
        (nn.Conv2d(128, 128, 3, padding=1, bias=False), WinogradConv2d),
        (nn.Conv2d(127, 128, 3, padding=1, bias=False), nn.Conv2d),
        (nn.Conv2d(128, 128, 3, padding=1), nn.Conv2d),
        (nn.Conv2d(128, 128, 3, padding=1, stride=2, bias=False), nn.Conv2d),
        (nn.Conv2d(128, 128, 3, padding=1, groups=2, bias=False), nn.Conv2d),
        (nn.Conv2d(128, 128, 3, padding=2, dilation=2, bias=False), nn.Conv2d),
        (nn.Conv2d(128, 128, 3, bias=False), nn.Conv2d),
        (nn.Conv2d(128, 128, 3, padding=1, bias=False, padding_mode="reflect"), nn.Conv2d),
        (nn.Conv2d(512, 1024, 1), PointwiseConv2d),
        (nn.Conv2d(512, 512, 1), nn.Conv2d),
        (nn.Conv2d(512, 1024, 1, stride=2), nn.Conv2d),
        (nn.Conv2d(512, 1024, 1, padding=1), nn.Conv2d),
    ],
)
def test_which_convolutions_are_changed(conv, expected):
    model = nn.Sequential(conv)
    assert use_fast_convolutions(model) == int(expected is not nn.Conv2d)
    assert type(model[0]) is expected and model[0] is conv
    # A second call finds nothing.
    assert use_fast_convolutions(model) == 0


def test_training_agrees_up_to_rounding_and_evaluation_exactly():
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(128, 512, 3, padding=1, bias=False), nn.BatchNorm2d(512), nn.Conv2d(512, 1024, 1)
    ).to(memory_format=torch.channels_last)
    fast = copy.deepcopy(plain)
    assert use_fast_convolutions(fast) == 2
    assert list(fast.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 128, 4, 3)
    outputs = [model(images) for model in (plain, fast)]
    assert outputs[1].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)
    for output in outputs:
        output.square().mean().backward()
    for ours, theirs in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)
    fast.load_state_dict(plain.state_dict())
    with torch.no_grad():
        # A copy, such as a running average, has the same classes.
        assert copy.deepcopy(fast).eval()(images).equal(plain.eval()(images))
