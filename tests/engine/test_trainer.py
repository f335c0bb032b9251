"""The training step: what accumulation computes, what handlers between backward and step may do."""

from typing import NamedTuple

import pytest
import torch
from ember_reid.engine.events import TrainingEvents
from ember_reid.engine.grad_cache import create_backward
from ember_reid.engine.handlers.ema import EMA, RunningAverage
from ember_reid.engine.handlers.gradients import ClipGradients, Freeze, RescaleCenterGradients
from ember_reid.engine.losses.criterion import Criterion, WeightedLoss, mean_over
from ember_reid.engine.trainer import create_trainer
from ember_reid.layers import CenterLoss, smoothed_cross_entropy, triplet_loss
from ember_reid.modeling.output import ReidOutput
from ignite.engine import Events
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class Batch(NamedTuple):
    images: Tensor
    pids: Tensor
    teachers: tuple = ()


class Net(nn.Module):
    """[B, 12] -> embedding and one head of 16 classes."""

    def __init__(self, *, dropout: float = 0.0, norm: bool = False):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(12, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.Dropout(dropout)
        )
        self.classify = nn.Linear(8, 16)

    def forward(self, images: Tensor) -> ReidOutput:
        features = self.body(images)
        return ReidOutput(features, (self.classify(features),), (features,))


def criterion(center: nn.Module | None = None) -> Criterion:
    def ce(output, batch):
        return smoothed_cross_entropy(output.logits[0], batch.pids, epsilon=0.1)

    def triplet(output, batch):
        return mean_over(output.features, lambda f: triplet_loss(f, batch.pids, margin=0.3))

    return Criterion({"ce": WeightedLoss(1.0, ce), "triplet": WeightedLoss(2.0, triplet)})


@pytest.fixture
def batch() -> Batch:
    """P 16 x K 4."""
    generator = torch.Generator().manual_seed(3)
    return Batch(torch.randn(64, 12, generator=generator), torch.arange(16).repeat_interleave(4))


def train_step(net, batch, *, parts=1, joint=False, attach=(), lr=0.0):
    """Run one iteration; returns (engine, gradients)."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    trainer = create_trainer(
        net,
        criterion(),
        [optimizer],
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        device_type="cpu",
        backward=create_backward(parts, joint_loss=joint),
    )
    trainer.add_event_handler(Events.STARTED, lambda: torch.manual_seed(7))
    for handler in attach:
        handler.attach(trainer)
    trainer.run([batch], max_epochs=1)
    return trainer, {name: p.grad for name, p in net.named_parameters()}


def make_net(**options) -> Net:
    torch.manual_seed(0)
    return Net(**options)


def test_four_parts_with_a_joint_loss_are_one_batch(batch):
    whole, expected = train_step(make_net(), batch)
    parts, gradients = train_step(make_net(), batch, parts=4, joint=True)
    for name in expected:
        torch.testing.assert_close(gradients[name], expected[name], rtol=1e-5, atol=1e-6)
    for name, value in whole.state.output.losses.items():
        torch.testing.assert_close(parts.state.output.losses[name], value)
    assert parts.state.output.num_images == 64
    assert parts.state.output.accuracy == whole.state.output.accuracy


def test_parts_with_losses_of_their_own_see_fewer_negatives(batch):
    whole, _ = train_step(make_net(), batch)
    apart, _ = train_step(make_net(), batch, parts=4)
    assert apart.state.output.losses["triplet"] < whole.state.output.losses["triplet"]
    torch.testing.assert_close(apart.state.output.losses["ce"], whole.state.output.losses["ce"])


def test_both_passes_of_a_joint_loss_draw_the_same_masks(batch):
    net = make_net(dropout=0.5)
    _, gradients = train_step(net, batch, parts=2, joint=True)
    twin = make_net(dropout=0.5).train()
    torch.manual_seed(7)
    outputs = [twin(images) for images in batch.images.split(32)]
    whole = ReidOutput(
        torch.cat([o.embedding for o in outputs]),
        (torch.cat([o.logits[0] for o in outputs]),),
        (torch.cat([o.features[0] for o in outputs]),),
    )
    sum(criterion()(whole, batch).values()).backward()
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-5, atol=1e-6)


def test_statistics_are_updated_once_by_a_joint_loss(batch):
    joint, apart = make_net(norm=True), make_net(norm=True)
    train_step(joint, batch, parts=2, joint=True)
    train_step(apart, batch, parts=2)
    assert joint.body[1].num_batches_tracked == 2
    torch.testing.assert_close(joint.body[1].running_var, apart.body[1].running_var)


def test_parts_must_be_equal(batch):
    with pytest.raises(
        ValueError, match="64 images cannot be divided into SOLVER.ACCUMULATION_STEPS 3 equal parts"
    ):
        train_step(make_net(), batch, parts=3)


def test_gradients_are_clipped_together(batch):
    net = make_net()
    _, free = train_step(make_net(), batch)
    _, clipped = train_step(net, batch, attach=[ClipGradients(net.parameters(), 0.01)])
    norm = torch.stack([gradient.norm() for gradient in free.values()]).norm()
    assert norm > 0.01
    for name in free:
        torch.testing.assert_close(clipped[name], free[name] * 0.01 / norm, rtol=1e-4, atol=1e-8)


def test_frozen_parts_stay_for_the_first_iterations_and_then_move(batch):
    net = make_net(norm=True)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    trainer = create_trainer(
        net,
        criterion(),
        [optimizer],
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        device_type="cpu",
    )
    Freeze(net, ("body",), 2).attach(trainer)
    seen = {}

    @trainer.on(Events.ITERATION_COMPLETED)
    def compare(engine):
        state = net.state_dict()
        seen[engine.state.iteration] = {
            name for name in state if not torch.equal(state[name], before[name])
        }

    trainer.run([batch, batch, batch], max_epochs=1)
    # Neither weight decay nor statistics.
    assert seen[1] == seen[2] == {"classify.weight", "classify.bias"}
    assert seen[3] == set(before)


def test_freeze_errors_list_the_modules():
    with pytest.raises(ValueError, match="SOLVER.FREEZE names bodi, the model has body, classify"):
        Freeze(Net(), ("bodi",), 1)


def test_centers_move_by_their_own_learning_rate(batch):
    center = CenterLoss(16, 8)
    features, pids = torch.randn(64, 8), batch.pids
    (0.0005 * center(features, pids)).backward()
    RescaleCenterGradients(center.parameters(), 0.0005)()
    small = center.centers.grad.clone()
    center.zero_grad()
    center(features, pids).backward()
    torch.testing.assert_close(small, center.centers.grad)


def test_backward_completed_is_between_backward_and_step(batch):
    net = make_net()
    before = net.classify.weight.clone()
    seen = []

    class Look:
        def attach(self, engine):
            engine.add_event_handler(TrainingEvents.BACKWARD_COMPLETED, self)

        def __call__(self):
            seen.append(
                (net.classify.weight.grad is not None, torch.equal(net.classify.weight, before))
            )

    train_step(net, batch, attach=[Look()], lr=0.1)
    assert seen == [(True, True)]
    assert not torch.equal(net.classify.weight, before)


def test_average_takes_its_part_of_every_step():
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    average = EMA(net, 0.75)
    nn.init.constant_(net.weight, 3.0)
    average()
    # 0.75 * 1 + 0.25 * 3
    assert average.model.weight.item() == 1.5
    average()
    assert average.model.weight.item() == 1.875


def test_average_copies_statistics_and_is_the_model_itself_when_off():
    net = nn.BatchNorm1d(2)
    average = EMA(net, 0.9)
    net(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    average()
    assert (
        torch.equal(average.model.running_mean, net.running_mean)
        and average.model.num_batches_tracked == 1
    )
    assert EMA(net, 0.0).model is net


def test_a_weight_on_the_device_gives_the_bits_of_a_number():
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(7, 5, generator=generator) for _ in range(3)]
    for weight in (0.001, 0.3, 0.75):
        number = [torch.ones_like(tensor) for tensor in tensors]
        static = [torch.ones_like(tensor) for tensor in tensors]
        count = torch.zeros((), dtype=torch.int64)
        RunningAverage(zip(number, tensors, strict=True)).update(weight)
        RunningAverage(zip(static, tensors, strict=True), [(count, torch.tensor(4))]).update(
            torch.tensor([weight])
        )
        assert all(torch.equal(a, b) for a, b in zip(number, static, strict=True))
        assert count == 4


def test_averages_are_sorted_by_dtype_once():
    net = make_net(norm=True)
    average = EMA(net, 0.9)
    calls = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            calls.append((str(function), {tensor.dtype for tensor in args[0]}))
            return function(*args, **(kwargs or {}))

    average()
    with Count():
        average()
    assert [name for name, _ in calls] == ["aten._foreach_lerp_.Scalar"] + [
        "aten._foreach_copy_.default"
    ] * 2
    assert all(len(dtypes) == 1 for _, dtypes in calls)
