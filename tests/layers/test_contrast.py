"""Contrastive losses with memories, against loops that follow the authors' programs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ember_reid.layers.contrast import (
    cluster_centers,
    cluster_contrast_loss,
    hybrid_contrast_loss,
    inter_camera_loss,
    intra_camera_loss,
    update_each,
    update_hardest,
)


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator))


def test_cluster_contrast_by_hand():
    memory = torch.eye(2)
    embeddings = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = cluster_contrast_loss(embeddings, torch.tensor([0]), memory, temperature=0.5)
    assert loss.item() == pytest.approx(np.log1p(np.exp(-2)))
    loss.backward()
    # The gradient of -x0 / t + logsumexp(x / t).
    other = 1 / (1 + np.exp(2))
    assert embeddings.grad[0].tolist() == pytest.approx([-2 * other, 2 * other])


def test_hybrid_contrast_equals_the_loop():
    memory, embeddings = unit(7, 5), unit(4, 5, seed=1)
    labels, entries = torch.tensor([0, 1, 2, 2, 3, 3, 3]), torch.tensor([0, 3, 5, 1])
    expected = 0.0
    for x, entry in zip(embeddings, entries, strict=True):
        cosines = memory @ x / 0.05
        classes = torch.stack([cosines[labels == label].mean() for label in range(4)])
        share = classes.exp() / (classes.exp().sum() + 1e-6)
        expected -= float(torch.log(share[labels[entry]] + 1e-6)) / 4
    found = hybrid_contrast_loss(embeddings, entries, memory, labels, temperature=0.05)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    empty = unit(4, 5)[:0].requires_grad_()
    assert hybrid_contrast_loss(empty, entries[:0], memory, labels, temperature=0.05).item() == 0


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.9])
def test_updates_equal_the_loops(momentum):
    memory, embeddings = unit(5, 6), unit(9, 6, seed=2)
    entries = torch.tensor([3, 0, 3, 1, 3, 0, 4, 1, 3])
    expected = memory.clone()
    for x, entry in zip(embeddings, entries.tolist(), strict=True):
        expected[entry] = momentum * expected[entry] + (1 - momentum) * x
        expected[entry] /= expected[entry].norm()
    found = memory.clone()
    update_each(found, embeddings, entries, momentum)
    torch.testing.assert_close(found, expected)
    assert torch.equal(found[2], memory[2])

    hardest = memory.clone()
    for entry in (0, 1, 3, 4):
        own = embeddings[entries == entry]
        x = own[int((own @ memory[entry]).argmin())]
        hardest[entry] = F.normalize(momentum * memory[entry] + (1 - momentum) * x, dim=0)
    found = memory.clone()
    update_hardest(found, embeddings, entries, momentum)
    torch.testing.assert_close(found, hardest)


def test_centers_ignore_outliers():
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]])
    centers = cluster_centers(features, torch.tensor([0, 0, -1, 1]), 2)
    torch.testing.assert_close(centers, torch.tensor([[0.5**0.5, 0.5**0.5], [-1.0, 0.0]]))


def test_camera_losses_equal_the_loops():
    """Per camera, as in the authors' program."""
    memory, embeddings = unit(8, 6), unit(6, 6, seed=3) / 0.07
    labels, memory_camids = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), torch.tensor([0, 1] * 4)
    entries = torch.tensor([0, 2, 3, 5, 7, 7])
    camids = memory_camids[entries]
    intra = inter = 0.0
    for camera in (0, 1):
        rows = torch.nonzero(camids == camera).flatten()
        own = torch.nonzero(memory_camids == camera).flatten()
        targets = torch.tensor([own.tolist().index(entry) for entry in entries[rows].tolist()])
        intra += F.cross_entropy(embeddings[rows] @ memory[own].T, targets).item()
        for row in rows.tolist():
            cosines = memory @ embeddings[row]
            same = labels == labels[entries[row]]
            negatives = cosines[~same].sort().values[-3:]
            shares = torch.log_softmax(torch.cat((cosines[same], negatives)), dim=0)
            inter -= shares[:2].mean().item() / len(rows)
    found = intra_camera_loss(embeddings, entries, camids, memory, memory_camids)
    assert found.item() == pytest.approx(intra, rel=1e-5)
    found = inter_camera_loss(embeddings, labels[entries], camids, memory, labels, num_negatives=3)
    assert found.item() == pytest.approx(inter, rel=1e-5)
