import sys
import types

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.solver import RateOptions, build_optimizers, create_optimizer, group_parameters
from torch import nn


class Tiny(nn.Module):
    """A backbone (convolution, norm) and a head (neck with a frozen bias, classifier)."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
        self.head[0].bias.requires_grad_(False)


def names_by_group(model, groups):
    names = {p: n for n, p in model.named_parameters()}
    return {(g["lr"], g["weight_decay"]): {names[p] for p in g["params"]} for g in groups}


def test_equal_settings_give_one_group():
    groups = group_parameters(Tiny(), RateOptions(lr=0.1, weight_decay=0.01))
    assert len(groups) == 1
    assert groups[0]["initial_lr"] == 0.1
    # All eight except the frozen bias of the neck.
    assert len(groups[0]["params"]) == 7


def test_biases_norms_and_head_have_separate_rates_and_decays():
    model = Tiny()
    groups = group_parameters(
        model,
        RateOptions(
            lr=1.0,
            weight_decay=0.1,
            bias_lr_factor=2.0,
            head_lr_factor=10.0,
            weight_decay_bias=0.2,
            weight_decay_norm=0.3,
        ),
    )
    assert names_by_group(model, groups) == {
        (1.0, 0.1): {"backbone.0.weight"},
        (2.0, 0.2): {"backbone.0.bias", "backbone.1.bias"},
        (1.0, 0.3): {"backbone.1.weight"},
        (10.0, 0.3): {"head.0.weight"},
        (10.0, 0.1): {"head.1.weight"},
        (20.0, 0.2): {"head.1.bias"},
    }


def test_a_wrapped_model_is_grouped_like_the_plain_model():
    model = Tiny()
    plain = group_parameters(model, RateOptions(lr=1.0, weight_decay=0.1, head_lr_factor=3.0))
    wrapped = group_parameters(
        nn.DataParallel(model), RateOptions(lr=1.0, weight_decay=0.1, head_lr_factor=3.0)
    )
    assert [g["lr"] for g in plain] == [g["lr"] for g in wrapped] == [1.0, 3.0]


def test_a_shared_parameter_is_in_one_group():
    model = nn.ModuleList([nn.Linear(2, 2, bias=False)])
    model.append(model[0])
    assert (
        sum(
            len(g["params"]) for g in group_parameters(model, RateOptions(lr=1.0, weight_decay=0.0))
        )
        == 1
    )


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "muon"])
def test_every_optimizer_reduces_the_loss(name):
    model = nn.Linear(3, 1)
    optimizer = create_optimizer(
        name, group_parameters(model, RateOptions(lr=0.05, weight_decay=0.0))
    )
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("fused", ["auto", "none"])
@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "muon"])
def test_frozen_parameters_can_be_trained_later(name, fused):
    first, later = nn.Linear(3, 2), nn.Linear(2, 1)
    model = nn.Sequential(first, later)
    groups = group_parameters(model, RateOptions(lr=0.05, weight_decay=0.1))
    optimizer = create_optimizer(name, groups, momentum=0.9, fused=fused)
    before = later.weight.clone()
    for step in range(3):
        optimizer.zero_grad()
        model(torch.ones(4, 3)).sum().backward()
        # Frozen parameters have no gradient.
        if step == 0:
            later.zero_grad()
        optimizer.step()
        assert torch.equal(later.weight, before) == (step == 0)


def trained(name, fused, *, steps=6, reload_at=None):
    """The weights after `steps` steps on random gradients; the bias has none in the first two."""
    rng = torch.Generator().manual_seed(0)
    model = nn.Linear(3, 2)
    nn.init.constant_(model.weight, 0.5)
    nn.init.constant_(model.bias, 0.25)
    groups = group_parameters(model, RateOptions(lr=0.05, weight_decay=0.1))
    optimizer = create_optimizer(name, groups, nesterov=True, fused=fused)
    for step in range(steps):
        model.weight.grad = torch.randn(2, 3, generator=rng)
        model.bias.grad = torch.randn(2, generator=rng) if step > 1 else None
        if step == reload_at:
            state = optimizer.state_dict()
            optimizer = create_optimizer(
                name,
                group_parameters(model, RateOptions(lr=0.05, weight_decay=0.1)),
                nesterov=True,
                fused=fused,
            )
            optimizer.load_state_dict(state)
        optimizer.step()
    return torch.cat([model.weight.detach().flatten(), model.bias.detach()])


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "muon"])
def test_fused_and_unfused_kernels_agree(name):
    torch.testing.assert_close(trained(name, "torch"), trained(name, "none"), rtol=1e-5, atol=1e-6)
    assert torch.equal(trained(name, "auto", reload_at=1), trained(name, "torch"))


def test_sgd_resumes_from_a_state_without_momentum():
    """Loads a checkpoint written with SOLVER.FUSED none while parameters were frozen."""
    plain = nn.Linear(1, 1)
    fused = nn.Linear(1, 1)
    fused.load_state_dict(plain.state_dict())
    slow = create_optimizer(
        "sgd", group_parameters(plain, RateOptions(lr=0.1, weight_decay=0.0)), fused="none"
    )
    fast = create_optimizer(
        "sgd", group_parameters(fused, RateOptions(lr=0.1, weight_decay=0.0)), fused="torch"
    )
    fast.load_state_dict(slow.state_dict())
    for model, optimizer in ((plain, slow), (fused, fast)):
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
    torch.testing.assert_close(plain.weight, fused.weight)


class FakeFused(torch.optim.SGD):
    """Has the arguments of the optimizers of NVIDIA apex and stores them."""

    def __init__(self, params, lr, momentum=0.0, nesterov=False, adam_w_mode=None):
        super().__init__(params, lr=lr, momentum=momentum, nesterov=nesterov)
        self.adam_w_mode = adam_w_mode

    def zero_grad(self):
        super().zero_grad()


@pytest.fixture
def fake_apex(monkeypatch):
    package, optimizers = types.ModuleType("apex"), types.ModuleType("apex.optimizers")
    optimizers.FusedAdam = optimizers.FusedSGD = FakeFused
    monkeypatch.setitem(sys.modules, "apex", package)
    monkeypatch.setitem(sys.modules, "apex.optimizers", optimizers)


@pytest.mark.parametrize("name, adam_w_mode", [("adam", False), ("adamw", True), ("sgd", None)])
def test_apex_is_used_where_it_is_installed(fake_apex, name, adam_w_mode, caplog):
    model = nn.Linear(3, 1, device="meta")
    optimizer = create_optimizer(
        name, group_parameters(model, RateOptions(lr=0.1, weight_decay=0.0)), fused="apex"
    )
    assert isinstance(optimizer, FakeFused) and optimizer.adam_w_mode == adam_w_mode
    assert optimizer.param_groups[0]["lr"] == 0.1 and not caplog.messages


def test_apex_on_a_cpu_falls_back_with_one_warning(fake_apex, caplog):
    optimizer = create_optimizer(
        "adam",
        group_parameters(nn.Linear(3, 1), RateOptions(lr=0.1, weight_decay=0.0)),
        fused="apex",
    )
    assert optimizer.param_groups[0]["fused"]
    assert caplog.messages == [
        "SOLVER.FUSED apex is not available, the one of torch is used: it works on GPUs only"
    ]


def test_without_apex_there_is_one_warning(caplog):
    cfg = load_config(None, ["SOLVER.FUSED", "apex"])
    (optimizer,) = build_optimizers(cfg, Tiny(), nn.Identity())
    assert optimizer.param_groups[0]["fused"]
    (line,) = caplog.messages
    assert line.startswith(
        "SOLVER.FUSED apex is not available, the one of torch is used: No module named 'apex'"
    )


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_devices_without_fused_kernels_use_unfused_ones(name, caplog):
    model = nn.Linear(3, 1, device="meta")
    optimizer = create_optimizer(
        name, group_parameters(model, RateOptions(lr=0.1, weight_decay=0.0))
    )
    assert not optimizer.param_groups[0]["fused"]
    assert caplog.messages == [
        "SOLVER.FUSED auto: torch has no fused kernels for meta, unfused ones are used"
    ]


def test_sgd_reads_momentum_from_the_configuration():
    cfg = load_config(
        None, ["SOLVER.OPTIMIZER", "sgd", "SOLVER.MOMENTUM", "0.8", "SOLVER.NESTEROV", "True"]
    )
    (optimizer,) = build_optimizers(cfg, Tiny(), nn.Identity())
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.param_groups[0]["momentum"], optimizer.param_groups[0]["nesterov"]) == (
        0.8,
        True,
    )


def test_centers_have_a_separate_sgd():
    criterion = nn.Module()
    criterion.centers = nn.Parameter(torch.zeros(2, 4))
    model_optimizer, center_optimizer = build_optimizers(load_config(), Tiny(), criterion)
    assert isinstance(model_optimizer, torch.optim.Adam)
    assert isinstance(center_optimizer, torch.optim.SGD)
    assert center_optimizer.param_groups[0]["params"] == [criterion.centers]
    assert center_optimizer.param_groups[0]["initial_lr"] == 0.5
    assert center_optimizer.param_groups[0]["momentum"] == 0


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(ValueError, match="the model has no trainable parameters"):
        create_optimizer("adam", [])


def test_the_learning_rate_scales_with_the_batch_only_if_base_batch_is_set():
    def rate(*words):
        return build_optimizers(load_config(None, words), Tiny(), nn.Identity())[0].param_groups[0][
            "lr"
        ]

    assert rate("SOLVER.IMS_PER_BATCH", "128") == 3.5e-4
    assert rate("SOLVER.IMS_PER_BATCH", "128", "SOLVER.BASE_BATCH", "64") == 7e-4
