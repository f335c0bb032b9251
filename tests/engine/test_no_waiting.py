"""Nothing in a training step waits for a GPU.

The device is "meta", which has shapes but no values, so reading a value back raises an error.
Copies to the device are checked: a copy from pageable memory makes the host wait for the device.
"""

from contextlib import contextmanager
from dataclasses import fields

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.data import cache
from ember_reid.data.augment_fixed import FixedShapeAugmentation
from ember_reid.data.augment_settings import AugmentationSettings
from ember_reid.data.dataset import Normalization
from ember_reid.data.strong_augmentations import OPERATIONS
from ember_reid.engine import events
from ember_reid.engine.handlers.build import build_control, build_handlers
from ember_reid.engine.run.build import build_training_run
from ember_reid.solver import RateOptions, create_optimizer, group_parameters
from ignite.engine import Events
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.helpers.late_copies import LateCopy

META = torch.device("meta")
aten = torch.ops.aten
LOSSES = "LOSS.CENTER.WEIGHT 0.1 LOSS.CIRCLE.WEIGHT 1 LOSS.COSFACE.WEIGHT 1 LOSS.XBM.SIZE 16"
HANDLERS = (
    "SOLVER.EMA_DECAY 0.9 SOLVER.CLIP_NORM 5 SOLVER.FREEZE ('backbone',) SOLVER.FREEZE_ITERS 2 "
    "SOLVER.LOG_PERIOD 1"
)


READS = (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.equal)
INDEXING = (aten.index, aten.index_put, aten.index_put_)


class WatchOperations(TorchDispatchMode):
    """Raises where the host would wait for "meta", were it a GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        operation = function.overloadpacket
        tensors = [value for value in tree_leaves(args) if isinstance(value, torch.Tensor)]
        devices = {tensor.device for tensor in tensors}
        if operation in (aten.copy_, aten._to_copy) and len(devices | {out.device}) > 1:
            if not (kwargs.get("non_blocking") or args[2:]):
                raise AssertionError(f"{function} between {out.device} and the other device waits")
        if operation in READS and META in devices:
            raise AssertionError(f"{function} waits")
        if operation in INDEXING and args[0].device == META:
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype == torch.bool or index.device != META for index in indices):
                raise AssertionError(f"{function} with an index of the host or a mask waits")
        return out


class WatchLiterals(TorchFunctionMode):
    """Raises where numbers of Python go to "meta" directly."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if (
            function in (torch.tensor, torch.as_tensor)
            and torch.device(kwargs.get("device") or "cpu") == META
        ):
            raise AssertionError("torch.tensor(..., device=) waits")
        if (
            function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__)
            and args[0].device == META
        ):
            if any(
                isinstance(index, list)
                for index in (args[1] if isinstance(args[1], tuple) else args[1:2])
            ):
                raise AssertionError("a list as an index waits")
        return function(*args, **kwargs)


@contextmanager
def no_waiting():
    with WatchOperations(), WatchLiterals():
        yield


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: torch.ones(3).to(META),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: torch.tensor([1.0], device=META) + x,
        lambda x: x[[0, 1]],
        lambda x: x[torch.tensor([True, False, True])],
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x.nonzero(),
    ],
)
def test_the_watch_detects_synchronization(wait):
    with no_waiting(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        wait(torch.empty(3, device=META))


def test_the_watch_accepts_asynchronous_operations():
    x = torch.empty(3, device=META)
    with no_waiting():
        x.copy_(torch.ones(3), non_blocking=True)
        x[torch.ones(2, dtype=torch.int64).to(META, non_blocking=True)] = 0.0
        torch.ones(3).nonzero()
        assert torch.ones(3).sum().item() == 3


def test_the_strongest_augmentation_does_not_synchronize():
    always = {
        field: 1.0
        for field in (f.name for f in fields(AugmentationSettings))
        if field.endswith("_prob")
    }
    augmentation = FixedShapeAugmentation(
        Normalization((0.5,) * 3, (0.5,) * 3), AugmentationSettings(**always)
    )
    # A clip of two frames.
    images = torch.empty((1, 2, 3, 32, 16), dtype=torch.uint8, device=META)
    with no_waiting():
        assert augmentation(images, torch.Generator().manual_seed(0)).shape == images.shape
        for operation in OPERATIONS.values():
            operation.apply(images[0, 0], operation.strength(5))


@pytest.mark.parametrize("mining", ["global", "local"])
def test_a_step_with_all_features_does_not_synchronize(mining, tiny_recipe, monkeypatch, tmp_path):
    """Cache on the device, augmentation, all losses, all handlers: as main.run builds them."""
    words = [*LOSSES.split(), *HANDLERS.split(), "SOLVER.MINING", mining, "SOLVER.OPTIMIZER", "sgd"]
    parts = [
        "SOLVER.ACCUMULATION_STEPS",
        "2",
        "DATALOADER.CACHE",
        "device",
        "OUTPUT_DIR",
        str(tmp_path),
    ]
    cfg = load_config(
        tiny_recipe, [*words, *parts, "INPUT.JITTER_PROB", "1", "INPUT.AFFINE_PROB", "1"]
    )
    monkeypatch.setattr(cache, "free_memory", lambda device=None: 2**40)
    monkeypatch.setattr(events, "HostCopy", LateCopy)
    run = build_training_run(cfg, META, evaluate=False)
    for handler in build_handlers(run, build_control(run)):
        handler.attach(run.trainer)
    trainer, loader = run.trainer, run.train_loader
    reported: list[int] = []
    monkeypatch.setattr(run.writers, "write", lambda *entry: reported.append(entry[2]))
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=3), lambda engine: engine.terminate(True)
    )
    with no_waiting():
        trainer.run(loader, max_epochs=2, epoch_length=len(loader))
    assert trainer.state.iteration == 3 and reported == [1, 2]
    assert {value.device for value in trainer.state.output.losses.values()} == {META}


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_half_precision_does_not_synchronize_to_check_gradients(name):
    """A scaler decides on the device whether to step, where the optimizer's kernels are fused."""

    class Count(TorchDispatchMode):
        reads = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.reads += function.overloadpacket in READS
            return function(*args, **(kwargs or {}))

    counts = {}
    for fused in ("auto", "none"):
        net = torch.nn.Linear(3, 2)
        optimizer = create_optimizer(
            name, group_parameters(net, RateOptions(lr=0.1, weight_decay=0.1)), fused=fused
        )
        scaler = torch.amp.GradScaler("cpu")
        with Count() as count:
            scaler.scale(net(torch.ones(4, 3)).sum()).backward()
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        counts[fused] = count.reads
    assert counts["auto"] == 0 < counts["none"]


def test_a_captured_step_does_not_wait(tiny_recipe, monkeypatch, tmp_path):
    """Four steps of the rehearsed graph: the host part as well as the device part."""
    words = "LOSS.CENTER.WEIGHT 0.1 LOSS.XBM.SIZE 16 SOLVER.EMA_DECAY 0.9 SOLVER.CLIP_NORM 5"
    words += " DATALOADER.CACHE device"
    cfg = load_config(tiny_recipe, [*words.split(), "OUTPUT_DIR", str(tmp_path)])
    monkeypatch.setattr(cache, "free_memory", lambda device=None: 2**40)
    monkeypatch.setattr(events, "HostCopy", LateCopy)
    # "meta" has no fused kernels, which read the learning rate on the device.
    for optimizer in (torch.optim.Adam, torch.optim.SGD):
        monkeypatch.setattr(optimizer, "step", lambda self, closure=None: None)
    run = build_training_run(cfg, META, evaluate=False, rehearse=True)
    for handler in build_handlers(run, build_control(run)):
        handler.attach(run.trainer)
    trainer, loader = run.trainer, run.train_loader
    monkeypatch.setattr(run.writers, "write", lambda *entry: None)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=4), lambda engine: engine.terminate(True)
    )
    with no_waiting():
        trainer.run(loader, max_epochs=2, epoch_length=len(loader))
    assert run.captured.runner.num_replays > 0 and run.captured.runner.failure == ""
