"""Winograd's algorithm computes the convolution and the gradients of torch."""

import pytest
import torch
from ember_reid.layers import fast_convolutions
from ember_reid.layers.fast_convolutions import winograd_conv2d


def draw(shape, seed=0, channels_last=True):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    form = torch.channels_last if channels_last else torch.contiguous_format
    return values.contiguous(memory_format=form).requires_grad_()


@pytest.mark.parametrize("size", [(8, 4), (5, 4), (6, 7), (1, 1), (2, 1)])
@pytest.mark.parametrize("chunk", [1 << 21, 1])
@pytest.mark.parametrize("channels_last", [True, False])
def test_values_and_gradients_are_those_of_a_convolution(monkeypatch, size, chunk, channels_last):
    # With a small chunk, images are processed one by one.
    monkeypatch.setattr(fast_convolutions, "_CHUNK", chunk)
    images = draw((3, 5, *size), 1, channels_last)
    weight = draw((4, 5, 3, 3), 2, channels_last)
    output = winograd_conv2d(images, weight)
    expected = torch.conv2d(images.double(), weight.double(), padding=1)
    above = draw((3, 4, *size), 3, channels_last).detach()
    found = torch.autograd.grad(output, (images, weight), above)
    wanted = torch.autograd.grad(expected, (images, weight), above.double())
    assert output.is_contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip((output, *found), (expected, *wanted), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-5, atol=2e-5)


def test_the_center_weight_copies_the_image():
    images = torch.arange(12.0).view(1, 1, 4, 3)
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 1] = 1
    assert winograd_conv2d(images, weight).equal(images)
    # The weight above the center shifts the image down by one row.
    weight = weight.roll(-1, dims=2)
    shifted = torch.cat([torch.zeros(1, 1, 1, 3), images[:, :, :-1]], dim=2)
    assert winograd_conv2d(images, weight).equal(shifted)


@pytest.mark.parametrize("needed", [0, 1])
def test_only_the_needed_gradient_is_computed(needed):
    inputs = [draw((1, 2, 3, 3)).detach(), draw((2, 2, 3, 3)).detach()]
    inputs[needed].requires_grad_()
    winograd_conv2d(*inputs).sum().backward()
    assert inputs[needed].grad is not None and inputs[1 - needed].grad is None


def test_there_are_no_second_derivatives():
    images = draw((1, 2, 3, 3))
    output = winograd_conv2d(images, draw((2, 2, 3, 3)).detach()).square().sum()
    (gradient,) = torch.autograd.grad(output, images, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
