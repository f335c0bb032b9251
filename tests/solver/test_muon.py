"""Muon: orthogonal updates of convolutions, AdamW for everything else."""

import copy

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.engine.graph.build import find_obstacle
from ember_reid.solver import RateOptions, build_optimizers, create_optimizer, group_parameters
from ember_reid.solver.muon import Muon, is_muon_weight, orthogonalize
from torch import nn


def matrix_with_singular_values(values, columns):
    rng = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(len(values), len(values), generator=rng))[0]
    right = torch.linalg.qr(torch.randn(columns, len(values), generator=rng))[0]
    return left, torch.tensor(values), right


@pytest.mark.parametrize("transpose", [False, True])
def test_orthogonalization_keeps_directions_and_equalizes_lengths(transpose):
    left, values, right = matrix_with_singular_values([3.0, 1.0, 0.5, 0.05], columns=7)
    matrix, expected = left @ values.diag() @ right.T, left @ right.T
    if transpose:
        matrix, expected = matrix.T, expected.T
    found = orthogonalize(matrix)
    singular_values = torch.linalg.svdvals(found)
    assert singular_values.min() > 0.65 and singular_values.max() < 1.25
    # The singular vectors do not change, so U^T X V is diagonal.
    inner = left.T @ (found.T if transpose else found) @ right
    assert (inner - inner.diagonal().diag()).abs().max() < 1e-4
    assert torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.97


def test_orthogonalization_is_the_newton_schulz_iteration_of_muon():
    matrix = torch.randn(6, 9, generator=torch.Generator().manual_seed(1))
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    torch.testing.assert_close(orthogonalize(matrix), x, rtol=1e-4, atol=1e-5)


def test_only_dense_convolutions_without_bias_are_trained_by_muon():
    assert is_muon_weight(nn.Conv2d(4, 8, 3, bias=False), "weight")
    assert not is_muon_weight(nn.Conv2d(4, 8, 3), "weight")
    assert not is_muon_weight(nn.Conv2d(4, 4, 3, groups=4, bias=False), "weight")
    assert not is_muon_weight(nn.Linear(4, 8, bias=False), "weight")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.backbone(x).mean(dim=(2, 3)))


def test_groups_of_the_configuration():
    words = "SOLVER.OPTIMIZER muon SOLVER.MUON_LR 0.2 SOLVER.BASE_LR 0.01 SOLVER.HEAD_LR_FACTOR 2"
    model = Net()
    (optimizer,) = build_optimizers(load_config(None, words.split()), model, nn.Identity())
    assert isinstance(optimizer, Muon) and optimizer.momentum == 0.9
    muon = [group for group in optimizer.param_groups if group["muon"]]
    assert [group["params"] for group in muon] == [[model.backbone[0].weight]]
    assert muon[0]["initial_lr"] == 0.2
    rates = {group["initial_lr"] for group in optimizer.param_groups if not group["muon"]}
    assert rates == {0.01, 0.02}


def test_the_first_step_is_relative_to_the_norm_which_stays_the_same():
    model = Net()
    weight = model.backbone[0].weight
    before = weight.detach().clone()
    train(model, create_muon(model), 1)
    after = weight.detach()
    # Scaling the momentum does not change its orthogonalization.
    update = orthogonalize(weight.grad.flatten(1)).view_as(before)
    moved = before - 0.1 * before.norm() * update / update.norm()
    torch.testing.assert_close(after, moved * before.norm() / moved.norm(), rtol=1e-3, atol=1e-5)
    assert after.norm().item() == pytest.approx(before.norm().item(), rel=1e-6)


def create_muon(model, **options):
    rates = RateOptions(lr=0.01, weight_decay=0.1, muon_lr=0.1)
    return create_optimizer("muon", group_parameters(model, rates), momentum=0.8, **options)


def train(model, optimizer, steps):
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8, generator=rng)).square().mean().backward()
        optimizer.step()


def test_the_other_parameters_are_trained_by_adamw():
    model, plain = Net(), Net()
    optimizer = create_muon(model)
    train(model, optimizer, 1)
    adamw = create_optimizer(
        "adamw", group_parameters(plain, RateOptions(lr=0.01, weight_decay=0.1))
    )
    train(plain, adamw, 1)
    assert torch.equal(model.head.weight, plain.head.weight)
    assert torch.equal(model.backbone[1].weight, plain.backbone[1].weight)
    assert not torch.equal(model.backbone[0].weight, plain.backbone[0].weight)


def test_a_resumed_optimizer_continues_with_the_same_bits():
    model = Net()
    optimizer = create_muon(model)
    train(model, optimizer, 3)
    again = copy.deepcopy(model)
    resumed = create_muon(again)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in (*optimizer.param_groups, *resumed.param_groups):
        group["lr"] *= 0.5
    train(model, optimizer, 2)
    train(again, resumed, 2)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_network_without_such_convolutions_is_refused():
    cfg = load_config(None, ["SOLVER.OPTIMIZER", "muon"])
    with pytest.raises(ValueError, match="this network has none; use adamw"):
        build_optimizers(cfg, nn.Sequential(nn.Linear(2, 2)), nn.Identity())


def test_closures_are_refused_and_steps_are_not_captured():
    with pytest.raises(ValueError, match="closures"):
        create_muon(Net()).step(lambda: 0.0)
    assert "muon" in find_obstacle(load_config(None, ["SOLVER.OPTIMIZER", "muon"]))
