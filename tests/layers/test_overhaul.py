import math

import pytest
import torch
from ember_reid.layers import margin_relu, negative_means, partial_distance


def test_margin_of_a_standard_normal():
    # The mean of the negative half of N(0, s^2) is -s sqrt(2 / pi).
    margins = negative_means(torch.tensor([1.0, -2.0]), torch.zeros(2))
    assert margins.tolist() == pytest.approx(
        [-math.sqrt(2 / math.pi), -2 * math.sqrt(2 / math.pi)], rel=1e-5
    )


def test_margins_are_the_means_of_negative_samples():
    scale, shift = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([0.3, -1.0, 1.0])
    generator = torch.Generator().manual_seed(0)
    samples = shift + scale * torch.randn(400_000, 3, generator=generator)
    expected = [samples[:, c][samples[:, c] < 0].mean().item() for c in range(3)]
    assert negative_means(scale, shift).tolist() == pytest.approx(expected, abs=0.01)


def test_margins_of_positive_and_constant_channels():
    margins = negative_means(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([5.0, 2.0, -2.0]))
    assert margins.tolist() == [-3.0, 0.0, -2.0]


def test_margin_relu_by_hand():
    # [1, 2, 1, 2]
    maps = torch.tensor([[[[-2.0, 1.0]], [[-0.1, -4.0]]]])
    out = margin_relu(maps, torch.tensor([-1.0, -0.5]))
    assert out.flatten().tolist() == pytest.approx([-1.0, 1.0, -0.1, -0.5])


def test_partial_distance_by_hand():
    # A difference counts if the target is positive or the student is above it; the third does not.
    student = torch.tensor([1.0, 0.5, -3.0, -0.5]).view(1, 1, 2, 2)
    target = torch.tensor([3.0, -1.0, -1.0, 2.0]).view(1, 1, 2, 2)
    assert partial_distance(student, target).item() == 2**2 + 1.5**2 + 0 + 2.5**2


def test_partial_distance_has_a_gradient_for_the_student_only():
    target = torch.randn(2, 3, 4, 4, requires_grad=True)
    assert partial_distance(target.detach(), target).item() == 0
    student = torch.randn(2, 3, 4, 4, requires_grad=True)
    partial_distance(student, target).backward()
    assert student.grad.abs().sum() > 0
    assert target.grad is None


def test_partial_distance_has_the_gradient_of_its_formula():
    generator = torch.Generator().manual_seed(0)
    student, target = torch.randn(2, 3, 5, 4, 2, generator=generator, dtype=torch.double)
    counts = ((student > target) | (target > 0)).double()
    by_autograd = student.clone().requires_grad_()
    formula = ((by_autograd - target).square() * counts).sum()
    formula.backward()
    student.requires_grad_()
    found = partial_distance(student, target)
    (3 * found).backward()
    torch.testing.assert_close(found, formula)
    torch.testing.assert_close(student.grad, 3 * by_autograd.grad)


def test_half_precision_is_summed_in_float32():
    student = torch.full((1, 1, 32, 32), 1.0, dtype=torch.bfloat16, requires_grad=True)
    distance = partial_distance(
        student, torch.full((1, 1, 32, 32), 0.9921875, dtype=torch.bfloat16)
    )
    assert distance.dtype == torch.float32
    assert distance.item() == 1024 * 0.0078125**2
    distance.backward()
    assert student.grad.dtype == torch.bfloat16
    assert (student.grad == 2 * 0.0078125).all()


def test_a_target_of_zero_counts_as_not_positive():
    student = torch.tensor([[[[-1.0, 1.0, 2.0]]]])
    target = torch.tensor([[[[0.0, -0.0, 1e-30]]]])
    assert partial_distance(student, target).item() == 0 + 1 + 4
