"""Triplet, pairwise and center losses compared with loops over Python lists."""

import math

import pytest
import torch
import torch.nn.functional as F
from ember_reid.layers import (
    CenterLoss,
    circle_loss,
    cosface_loss,
    euclidean_distances,
    triplet_loss,
)


def random_batch(seed, counts=(4, 2, 1, 5), dim=6):
    """Embeddings and pids of identities with different numbers of images, shuffled."""
    rng = torch.Generator().manual_seed(seed)
    pids = torch.cat([torch.full((n,), i) for i, n in enumerate(counts)])
    order = torch.randperm(len(pids), generator=rng)
    return torch.randn(len(pids), dim, generator=rng, dtype=torch.float64), pids[order]


def soft_weighted(values, sign):
    weights = [math.exp(sign * v) for v in values]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def published_weighted(values, others, sign):
    """FastReID: the maximum includes 0 if any pair is masked, and 1e-6 is added to the sum."""
    logits = [sign * v for v in values]
    largest = max([*logits, *([0.0] if others else [])])
    weights = [math.exp(logit - largest) for logit in logits]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / (sum(weights) + 1e-6)


def slow_triplet(x, pids, margin, mining, form="exact"):
    losses = []
    for a in range(len(x)):
        d = [(x[a] - x[j]).norm().item() for j in range(len(x))]
        others = [d[j] for j in range(len(x)) if pids[j] == pids[a] and j != a]
        negatives = [d[j] for j in range(len(x)) if pids[j] != pids[a]]
        if not others or not negatives:
            continue
        if mining == "hard":
            ap, an = max(others), min(negatives)
        elif form == "published":
            # The anchor is a positive; all other pairs are masked.
            ap = published_weighted([*others, 1e-6], negatives, 1)
            an = published_weighted(negatives, others, -1)
        else:
            ap, an = soft_weighted([*others, 0.0], 1), soft_weighted(negatives, -1)
        losses.append(math.log1p(math.exp(ap - an)) if margin == 0 else max(0.0, ap - an + margin))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("mining", ["hard", "weighted"])
@pytest.mark.parametrize("margin", [0, 0.3, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_triplet_equals_the_slow_loop(mining, margin, seed):
    x, pids = random_batch(seed)
    loss = triplet_loss(x, pids, margin=margin, mining=mining)
    assert loss.item() == pytest.approx(slow_triplet(x, pids, margin, mining), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("scale", [1, 8, 20])
def test_the_published_form_equals_the_slow_loop(scale):
    x, pids = random_batch(1, counts=(4, 4, 4))
    loss = triplet_loss(scale * x, pids, margin=0, mining="weighted", form="published")
    expected = slow_triplet(scale * x, pids, 0, "weighted", "published")
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("distance", [10, 16, 20, 30])
def test_the_published_form_contracts_positives_if_all_negatives_are_far(distance):
    """Two identities of two images each, 5 apart; the negatives are at least `distance` away.

    The exact loss vanishes there; the published one tends to the distance of the positives.
    """
    x = torch.tensor([[0.0, 0], [0, 5], [distance, 0], [distance, 5]], dtype=torch.float64)
    pids = torch.tensor([0, 0, 1, 1])
    d_ap = 5 * math.exp(5) / (math.exp(5) + 1)
    negatives = (distance, math.hypot(distance, 5))
    weights = [math.exp(-d) for d in negatives]
    total = sum(w * d for w, d in zip(weights, negatives, strict=True))
    for form, normalizer in (("exact", sum(weights)), ("published", sum(weights) + 1e-6)):
        loss = triplet_loss(x, pids, margin=0, mining="weighted", form=form).item()
        assert loss == pytest.approx(math.log1p(math.exp(d_ap - total / normalizer)), rel=1e-4)
    assert (loss > 2) == (distance > 14)


def test_hard_triplet_by_hand():
    # On a line: identity 0 at 0 and 3, identity 1 at 4 and 5.
    # Hardest (positive, negative) distances: (3, 4), (3, 1), (1, 1), (1, 2).
    x, pids = torch.tensor([[0.0], [3.0], [4.0], [5.0]]), torch.tensor([0, 0, 1, 1])
    assert triplet_loss(x, pids, margin=0.5).item() == pytest.approx((0 + 2.5 + 0.5 + 0) / 4)


@pytest.mark.parametrize("mining", ["hard", "weighted"])
def test_soft_margin_at_equal_distances_is_ln_2(mining):
    x, pids = torch.zeros(6, 4, requires_grad=True), torch.tensor([0, 0, 1, 1, 2, 2])
    loss = triplet_loss(x, pids, margin=0, mining=mining)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), abs=1e-5)
    assert torch.isfinite(x.grad).all()


def test_soft_margin_does_not_overflow():
    x = torch.tensor([[0.0], [1e4], [5e3], [5e3]], requires_grad=True)
    loss = triplet_loss(x, torch.tensor([0, 0, 1, 1]), margin=0)
    loss.backward()
    assert loss.item() == pytest.approx((5000 + 5000 + 0 + 0) / 4, abs=0.1)
    assert torch.isfinite(x.grad).all()


LOSSES = {
    "hard": lambda x, y: triplet_loss(x, y, margin=0.3),
    "soft weighted": lambda x, y: triplet_loss(x, y, margin=0, mining="weighted"),
    "circle": lambda x, y: circle_loss(x, y, margin=0.25, gamma=64),
    "cosface": lambda x, y: cosface_loss(x, y, margin=0.25, gamma=64),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "pids", [[0, 1, 2], [3, 3, 3], [7]], ids=["no positive", "no negative", "one image"]
)
def test_without_a_qualified_anchor_the_loss_is_zero_with_a_gradient(name, pids):
    x = torch.randn(len(pids), 4, requires_grad=True)
    loss = LOSSES[name](x, torch.tensor(pids))
    loss.backward()
    assert loss.shape == () and loss.item() == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_the_batch_has_no_influence(name):
    x, pids = random_batch(5)
    order = torch.randperm(len(pids), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(LOSSES[name](x[order], pids[order]), LOSSES[name](x, pids))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_computed_in_float32_under_autocast(name):
    x, pids = random_batch(0)
    x = x.float()
    expected = LOSSES[name](x, pids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(LOSSES[name](x, pids), expected)
        assert LOSSES[name](x.bfloat16(), pids).dtype == torch.float32


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name):
    x, pids = random_batch(2, counts=(2, 2, 3), dim=3)
    # Its weights are constants, so finite differences do not apply.
    if name == "circle":
        x = x.requires_grad_()
        LOSSES[name](x, pids).backward()
        assert x.grad.abs().sum() > 0
    else:
        assert torch.autograd.gradcheck(lambda e: LOSSES[name](e, pids), x.requires_grad_())


def slow_pairwise(x, pids, positive_logit, negative_logit):
    x = F.normalize(x)
    losses = []
    for a in range(len(x)):
        s = [float(x[a] @ x[j]) for j in range(len(x))]
        p = sum(
            math.exp(positive_logit(s[j])) for j in range(len(x)) if pids[j] == pids[a] and j != a
        )
        n = sum(math.exp(negative_logit(s[j])) for j in range(len(x)) if pids[j] != pids[a])
        if p and n:
            losses.append(math.log1p(p * n))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("margin, gamma", [(0.25, 8.0), (0.4, 16.0)])
def test_circle_and_cosface_equal_their_formulas(margin, gamma):
    x, pids = random_batch(4)
    circle = slow_pairwise(
        x,
        pids,
        lambda s: -gamma * max(0.0, 1 + margin - s) * (s - 1 + margin),
        lambda s: gamma * max(0.0, s + margin) * (s - margin),
    )
    cosface = slow_pairwise(x, pids, lambda s: -gamma * s, lambda s: gamma * (s + margin))
    assert circle_loss(x, pids, margin=margin, gamma=gamma).item() == pytest.approx(
        circle, rel=1e-6
    )
    assert cosface_loss(x, pids, margin=margin, gamma=gamma).item() == pytest.approx(
        cosface, rel=1e-6
    )


def test_unknown_mining_lists_the_choices():
    with pytest.raises(ValueError, match="form is 'fast'; choose one of exact, published"):
        triplet_loss(torch.zeros(2, 2), torch.tensor([0, 0]), margin=0.3, form="fast")
    with pytest.raises(ValueError, match="mining is 'soft'; choose one of hard, weighted"):
        triplet_loss(torch.zeros(2, 2), torch.tensor([0, 0]), margin=0.3, mining="soft")


def test_center_loss_by_hand():
    criterion = CenterLoss(3, 2)
    with torch.no_grad():
        criterion.centers.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0], [9.0, 9.0]]))
    loss = criterion(torch.tensor([[3.0, 4.0], [1.0, 2.0]]), torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == (25 + 1) / 2
    # d/dc of |x - c|^2 / 2 images = c - x; the third identity is not in the batch.
    assert criterion.centers.grad.tolist() == [[-3.0, -4.0], [0.0, -1.0], [0.0, 0.0]]


def test_center_loss_refuses_other_dimensions():
    with pytest.raises(ValueError, match="centers have 2 dimensions, features 5"):
        CenterLoss(3, 2)(torch.zeros(1, 5), torch.tensor([0]))


def test_distances_of_equal_rows_have_a_finite_gradient():
    x = torch.ones(2, 3, requires_grad=True)
    distances = euclidean_distances(x, torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 4.0]]))
    distances.sum().backward()
    assert distances[0].tolist() == pytest.approx([1e-6, 3.0])
    assert torch.isfinite(x.grad).all()
