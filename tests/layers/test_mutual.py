"""Losses of Mutual Mean-Teaching, against loops."""

import pytest
import torch
from ember_reid.layers.mutual import soft_cross_entropy, soft_triplet_loss


def test_soft_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, 0.0]], requires_grad=True)
    teacher = torch.log(torch.tensor([[3.0, 1.0]])).requires_grad_()
    loss = soft_cross_entropy(logits, teacher)
    assert loss.item() == pytest.approx(torch.log(torch.tensor(2.0)).item())
    loss.backward()
    assert logits.grad[0].tolist() == pytest.approx([-0.25, 0.25])
    assert teacher.grad is None


def test_soft_triplet_equals_the_loop():
    generator = torch.Generator().manual_seed(0)
    features, teacher = (torch.randn(6, 4, generator=generator) for _ in range(2))
    pids = torch.tensor([0, 0, 1, 1, 1, 2])
    own, others = torch.cdist(features, features), torch.cdist(teacher, teacher)
    hard = soft = 0.0
    for i in range(6):
        positive = max((j for j in range(6) if pids[j] == pids[i]), key=lambda j: own[i, j])
        negative = min((j for j in range(6) if pids[j] != pids[i]), key=lambda j: own[i, j])
        scores = torch.log_softmax(torch.stack((own[i, positive], own[i, negative])), dim=0)
        targets = torch.softmax(torch.stack((others[i, positive], others[i, negative])), dim=0)
        hard -= scores[1].item() / 6
        soft -= (targets * scores).sum().item() / 6
    assert soft_triplet_loss(features, pids).item() == pytest.approx(hard, rel=1e-4)
    assert soft_triplet_loss(features, pids, teacher).item() == pytest.approx(soft, rel=1e-4)
    same = torch.zeros(4, 3, requires_grad=True)
    soft_triplet_loss(same, torch.tensor([0, 0, 1, 1])).backward()
    assert same.grad.isfinite().all()
