import math

import pytest
import torch
from ember_reid.layers import apply_margin


def margin_of(cosines, kind, margin, scale=10.0, pid=0):
    logits = scale * torch.tensor([cosines])
    return apply_margin(logits, torch.tensor([pid]), kind=kind, scale=scale, margin=margin)[
        0
    ].tolist()


def test_arcface_adds_to_the_angle_of_the_target_only():
    assert margin_of([math.cos(1.0), 0.3], "arcface", 0.5) == pytest.approx(
        [10 * math.cos(1.5), 3.0], rel=1e-5
    )


def test_arcface_decreases_beyond_pi():
    targets = [
        margin_of([math.cos(theta)], "arcface", 0.5)[0] for theta in (2.5, 2.6, 2.7, 2.9, 3.1)
    ]
    assert targets == sorted(targets, reverse=True)


def test_cosface_subtracts_from_the_target_only():
    assert margin_of([0.2, 0.6], "cosface", 0.35, pid=1) == pytest.approx([2.0, 2.5])


def test_circle_weights_by_the_distance_to_the_optimum():
    # Target 0.5, m 0.25: (1.25 - 0.5)(0.5 - 0.75); other 0.1: (0.1 + 0.25)(0.1 - 0.25); at -0.3: 0.
    assert margin_of([0.5, 0.1, -0.3], "circle", 0.25) == pytest.approx(
        [-1.875, -0.525, 0.0], abs=1e-6
    )


@pytest.mark.parametrize("kind", ["arcface", "cosface"])
def test_a_margin_of_zero_changes_nothing(kind):
    assert margin_of([0.5, -0.5], kind, 0.0) == pytest.approx([5.0, -5.0], rel=1e-5)


def test_none_returns_the_logits_themselves():
    logits = torch.zeros(2, 3)
    assert apply_margin(logits, torch.tensor([0, 1]), kind="none", scale=1.0, margin=0.3) is logits


@pytest.mark.parametrize("kind", ["arcface", "cosface", "circle"])
def test_cosines_of_one_have_finite_gradients(kind):
    logits = torch.tensor([[10.0, -10.0]], requires_grad=True)
    apply_margin(logits, torch.tensor([0]), kind=kind, scale=10.0, margin=0.3).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_an_unknown_margin_lists_the_choices():
    with pytest.raises(
        ValueError, match="margin kind is 'arc'; choose one of none, arcface, cosface, circle"
    ):
        margin_of([0.0], "arc", 0.1)
