"""The cross-batch memory, and pair losses against it."""

import math

import pytest
import torch
from ember_reid.layers import MemoryBank, References, circle_loss, cosface_loss, triplet_loss

from tests.layers.test_metric_losses import random_batch


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_the_oldest_entries_are_overwritten():
    bank = MemoryBank(5, 1)
    bank.store(column(1, 2), torch.tensor([1, 2]))
    references = bank.store(column(3, 4), torch.tensor([3, 4]))
    assert references.own.tolist() == [2, 3] and references.pids.tolist() == [1, 2, 3, 4, -1]
    references = bank.store(column(5, 6), torch.tensor([5, 6]))
    assert references.embeddings.flatten().tolist() == [6, 2, 3, 4, 5]
    assert references.pids.tolist() == [6, 2, 3, 4, 5] and references.own.tolist() == [4, 0]
    with pytest.raises(ValueError, match="a memory of 5 embeddings cannot store 6 at once"):
        bank.store(torch.zeros(6, 1), torch.zeros(6, dtype=torch.int64))


def test_nothing_is_stored_before_start():
    bank = MemoryBank(4, 1, start=2)
    x, pids = column(0, 1).requires_grad_(), torch.tensor([0, 1])
    loss = triplet_loss(x, pids, margin=0.3, references=bank.store(x, pids))
    loss.backward()
    assert loss.item() == 0 and x.grad.tolist() == [[0.0], [0.0]]
    assert bank.pids.tolist() == [-1, -1, -1, -1]
    assert bank.store(x.detach(), pids).pids.tolist() == [-1, -1, 0, 1]


def test_the_state_dict_contains_the_whole_memory():
    bank, twin = MemoryBank(3, 1), MemoryBank(3, 1)
    bank.store(column(1, 2), torch.tensor([1, 2]))
    twin.load_state_dict(bank.state_dict())
    for each in (bank, twin):
        each.store(column(3, 4), torch.tensor([3, 4]))
    assert all(torch.equal(a, b) for a, b in zip(bank.buffers(), twin.buffers(), strict=True))
    assert twin.embeddings.flatten().tolist() == [4, 2, 3]


def test_hard_triplet_by_hand():
    """Memory: identity 0 at 0 (the anchor) and 4, identity 1 at 1, an empty entry at 0.5."""
    references = References(column(0, 4, 1, 0.5), torch.tensor([0, 0, 1, -1]), torch.tensor([0]))
    x = column(0.0).requires_grad_()
    loss = triplet_loss(x, torch.tensor([0]), margin=0.5, references=references)
    assert loss.item() == pytest.approx(4 - 1 + 0.5)
    loss.backward()
    # The gradients of both distances cancel.
    assert x.grad.item() == pytest.approx(0.0)
    # No other image of identity 0.
    alone = References(column(0, 1), torch.tensor([0, 1]), torch.tensor([0]))
    assert triplet_loss(x, torch.tensor([0]), margin=0.5, references=alone).item() == 0


def slow_pairs(x, pids, memory, memory_pids, own, positive_logit, negative_logit):
    """The pair loss of layers.pairwise, computed in loops over lists."""
    losses = []
    for a in range(len(x)):
        s = torch.nn.functional.cosine_similarity(x[a][None], memory).tolist()
        pairs = [
            (s[j], memory_pids[j] == pids[a], j) for j in range(len(memory)) if memory_pids[j] != -1
        ]
        positives = [positive_logit(value) for value, same, j in pairs if same and j != own[a]]
        negatives = [negative_logit(value) for value, same, _ in pairs if not same]
        if positives and negatives:
            total = math.log(sum(map(math.exp, positives))) + math.log(
                sum(map(math.exp, negatives))
            )
            losses.append(math.log1p(math.exp(total)))
    return sum(losses) / len(losses)


def slow_triplet(x, pids, memory, memory_pids, own, margin):
    losses = []
    for a in range(len(x)):
        d = [(x[a] - other).norm().item() for other in memory]
        positives = [d[j] for j in range(len(d)) if memory_pids[j] == pids[a] and j != own[a]]
        negatives = [d[j] for j in range(len(d)) if memory_pids[j] not in (-1, pids[a])]
        if positives and negatives:
            losses.append(max(0.0, max(positives) - min(negatives) + margin))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("seed", range(3))
def test_losses_against_a_memory_equal_slow_loops(seed):
    bank = MemoryBank(20, 6).double()
    bank.store(*random_batch(seed + 10, counts=(3, 4)))
    # 12 embeddings; the memory has one empty entry.
    x, pids = random_batch(seed)
    references = bank.store(x, pids)
    slow = (
        x,
        pids.tolist(),
        references.embeddings,
        references.pids.tolist(),
        references.own.tolist(),
    )
    m, gamma = 0.25, 4.0
    circle = slow_pairs(
        *slow,
        lambda s: -gamma * max(1 + m - s, 0) * (s - 1 + m),
        lambda s: gamma * max(s + m, 0) * (s - m),
    )
    cosface = slow_pairs(*slow, lambda s: -gamma * s, lambda s: gamma * (s + m))
    words = {"margin": m, "gamma": gamma, "references": references}
    assert circle_loss(x, pids, **words).item() == pytest.approx(circle, rel=1e-6)
    assert cosface_loss(x, pids, **words).item() == pytest.approx(cosface, rel=1e-6)
    assert triplet_loss(x, pids, margin=0.3, references=references).item() == pytest.approx(
        slow_triplet(*slow, 0.3), rel=1e-6
    )


LOSSES = {
    "hard": lambda *a, **k: triplet_loss(*a, margin=0.3, **k),
    "weighted": lambda *a, **k: triplet_loss(*a, margin=0, mining="weighted", **k),
    "circle": lambda *a, **k: circle_loss(*a, margin=0.25, gamma=64, **k),
    "cosface": lambda *a, **k: cosface_loss(*a, margin=0.25, gamma=64, **k),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_memory_of_one_batch_gives_the_loss_of_that_batch(name):
    x, pids = random_batch(3)
    references = MemoryBank(len(x) + 3, 6).double().store(x, pids)
    expected = LOSSES[name](x, pids)
    assert LOSSES[name](x, pids, references=references).item() == pytest.approx(
        expected.item(), rel=1e-6
    )
