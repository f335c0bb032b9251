"""A step that is structured for a CUDA graph gives the bits of the plain step.

On a CPU, the graph is rehearsed: its stand-in replays by calling the recorded function.
"""

import copy
import dataclasses
import logging

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.engine.graph import build as graph_build
from ember_reid.engine.graph.buffers import Field, StepBuffers
from ember_reid.engine.graph.build import build_step_mode
from ember_reid.engine.graph.capture import Rehearsal
from ember_reid.engine.graph.step import _count_batches_together
from ember_reid.engine.handlers.build import build_control, build_handlers
from ember_reid.engine.handlers.checkpoints import resume_engine
from ember_reid.engine.run.build import TrainingRun, build_training_run, seed_everything
from ignite.engine import Events
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")
RECIPES = {
    "averages, clipping, centers, memory": "SOLVER.EMA_DECAY 0.9 SOLVER.CLIP_NORM 0.5 "
    "LOSS.CENTER.WEIGHT 0.1 LOSS.XBM.SIZE 32 LOSS.XBM.START 1",
    "end of a freeze": "SOLVER.FREEZE ('backbone',) SOLVER.FREEZE_ITERS 4 SOLVER.OPTIMIZER sgd "
    "SOLVER.SCHEDULE_BY iteration SOLVER.SCHEDULE cosine",
    "clips, views, averaged teacher": "INPUT.NUM_FRAMES 3 INPUT.FRAME_SAMPLING multiview "
    "KD.EMA.ENABLED True KD.LOGITS.WEIGHT 1 KD.STUDENT_VIEWS 2",
    "feature maps": "MODEL.BACKBONE.NAME resnet18 KD.EMA.ENABLED True KD.FEATURE.WEIGHT 0.001",
    "microbatches without a cache": "SOLVER.ACCUMULATION_STEPS 2 SOLVER.MINING local "
    "DATALOADER.CACHE none SOLVER.FP16 True SOLVER.CPU_PRECISION bfloat16",
    "styles of other cameras": "MODEL.MIXSTYLE.STAGES (1,2) MODEL.MIXSTYLE.MIX cameras "
    "INPUT.NUM_FRAMES 2",
    "policies": "INPUT.AUTOAUG_PROB 0.5 INPUT.JITTER_PROB 0.5",
}


def create(recipe, words: str, folder, *, rehearse: bool, more=()) -> TrainingRun:
    """A run with all handlers attached; 4 epochs of 4 iterations."""
    folder.mkdir()
    periods = "SOLVER.MAX_EPOCHS 4 SOLVER.EVAL_PERIOD 100 SOLVER.CHECKPOINT_PERIOD 100"
    split = [*words.split(), *periods.split(), *more]
    cfg = load_config(recipe, [*split, "OUTPUT_DIR", str(folder)])
    seed_everything(cfg)
    run = build_training_run(cfg, CPU, evaluate=False, rehearse=rehearse)
    assert (run.captured is not None) == rehearse
    return run


def execute(run: TrainingRun, *, until: int = 10) -> list[dict[str, float]]:
    """Train up to an iteration; returns the losses of each iteration."""
    for handler in build_handlers(run, build_control(run)):
        handler.attach(run.trainer)
    return advance(run, until=until)


def advance(run: TrainingRun, *, until: int) -> list[dict[str, float]]:
    """Continue a run whose handlers are attached."""
    losses: list[dict[str, float]] = []

    @run.trainer.on(Events.ITERATION_COMPLETED)
    def record(engine) -> None:
        output = engine.state.output
        values = {**output.losses, "accuracy": output.accuracy}
        losses.append({name: value.item() for name, value in values.items()})

    @run.trainer.on(Events.ITERATION_COMPLETED(once=until))
    def stop(engine) -> None:
        engine.terminate(True)

    run.trainer.run(run.train_loader, 4, epoch_length=len(run.train_loader))
    return losses


def state_of(run: TrainingRun) -> dict[str, torch.Tensor]:
    """All tensors of a run by name."""
    found = {f"model.{name}": value for name, value in run.model.state_dict().items()}
    found |= {f"ema.{name}": value for name, value in run.ema.model.state_dict().items()}
    found |= {f"criterion.{name}": value for name, value in run.criterion.state_dict().items()}
    for name, part in run.distillation.state.items():
        found |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
    for number, optimizer in enumerate(run.optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            found |= {f"{number}.{index}.{key}": value for key, value in state.items()}
    return found


def assert_equal(first: TrainingRun, second: TrainingRun) -> None:
    one, other = state_of(first), state_of(second)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("words", RECIPES.values(), ids=RECIPES)
def test_ten_steps_have_the_bits_of_the_plain_step(tiny_recipe, tmp_path, words):
    plain = create(tiny_recipe, words, tmp_path / "plain", rehearse=False)
    captured = create(tiny_recipe, words, tmp_path / "captured", rehearse=True)
    assert execute(captured) == execute(plain)
    assert_equal(captured, plain)
    runner = captured.captured.runner
    num_states = 2 if "FREEZE" in words else 1
    assert runner.failure == "" and runner.num_graphs == num_states
    assert runner.num_replays == 10 - 3 * num_states


class FailingBackend(Rehearsal):
    """Executes eagerly; no capture succeeds."""

    def capture(self, function):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")


def test_a_failed_capture_is_one_line_and_changes_no_bit(
    tiny_recipe, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(graph_build, "Rehearsal", FailingBackend)
    captured = create(tiny_recipe, "", tmp_path / "captured", rehearse=True)
    plain = create(tiny_recipe, "", tmp_path / "plain", rehearse=False)
    assert execute(captured, until=6) == execute(plain, until=6)
    assert_equal(captured, plain)
    warnings = [
        record.getMessage()
        for record in caplog.records
        if record.name == "ember.train" and record.levelno >= logging.WARNING
    ]
    assert warnings == [
        "SOLVER.STEP graph: the step cannot be captured, training continues eagerly: operation not "
        "permitted when stream is capturing"
    ]
    assert captured.captured.runner.num_graphs == captured.captured.runner.num_replays == 0


def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(tiny_recipe, tmp_path):
    words = "SOLVER.EMA_DECAY 0.9 LOSS.CENTER.WEIGHT 0.1 SOLVER.FREEZE ('backbone',)"
    words += " SOLVER.FREEZE_ITERS 2"
    whole = create(tiny_recipe, words, tmp_path / "whole", rehearse=True)
    execute(whole)
    first = create(tiny_recipe, words, tmp_path / "first", rehearse=True)
    execute(first, until=6)
    content = copy.deepcopy(build_control(first).checkpoints.content(first.trainer))
    for state in content["optimizers"]:
        for group in state["param_groups"]:
            assert type(group["lr"]) is float and not group.get("capturable")
    # An eager run can continue as well.
    for number, rehearse in enumerate((True, False)):
        second = create(tiny_recipe, words, tmp_path / f"second{number}", rehearse=rehearse)
        control = build_control(second)
        for handler in build_handlers(second, control):
            handler.attach(second.trainer)
        progress = control.checkpoints.restore(copy.deepcopy(content))
        resume_engine(second.trainer, progress, second.train_loader, max_epochs=4)
        advance(second, until=10)
        assert_equal(second, whole)


def test_the_scaler_can_unscale_again_after_a_failed_capture(tiny_recipe, tmp_path):
    static = create(tiny_recipe, "", tmp_path / "run", rehearse=True).captured.static
    scaler, optimizer = torch.amp.GradScaler("cpu"), static.parts.optimizers[0]
    broken = copy.copy(static)
    broken.parts = dataclasses.replace(static.parts, scaler=scaler)
    parameter = optimizer.param_groups[0]["params"][0]
    scaler.scale(parameter.sum()).backward()
    scaler.unscale_(optimizer)
    broken.undo_capture()
    assert parameter.grad is None
    scaler.scale(parameter.sum()).backward()
    scaler.unscale_(optimizer)
    assert torch.equal(parameter.grad, torch.ones_like(parameter))


def test_slots_are_separate_and_aligned():
    fields = {"a": Field((3,), torch.int64), "b": Field((5,), torch.float32)}
    buffers = StepBuffers(fields, CPU)
    addresses = set()
    for number in range(4):
        slot = buffers.acquire()
        addresses.add(slot["a"].data_ptr())
        slot["a"].fill_(number)
        slot["b"].fill_(number / 2)
        assert buffers.device["a"].tolist() == [max(number - 1, 0)] * 3
        buffers.send()
        assert buffers.device["a"].tolist() == [number] * 3
        assert buffers.device["b"].tolist() == [number / 2] * 5
    assert len(addresses) == 3
    distance = buffers.device["b"].data_ptr() - buffers.device["a"].data_ptr()
    assert distance == 32  # 24 bytes, rounded up to a multiple of 16


def test_losses_stay_readable_for_two_log_periods(tiny_recipe, tmp_path):
    run = create(tiny_recipe, "SOLVER.LOG_PERIOD 2", tmp_path / "run", rehearse=True)
    outputs = []
    run.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: outputs.append(engine.state.output)
    )
    losses = execute(run, until=5)
    assert [output.losses["ce"].item() for output in outputs] == [row["ce"] for row in losses]


def test_batch_norms_are_counted_together():
    model = torch.nn.Sequential(*[torch.nn.BatchNorm1d(2) for _ in range(3)])
    model[1].eval()
    model[2].momentum = None  # a cumulative average reads its counter
    calls = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            calls.append(str(function))
            return function(*args, **(kwargs or {}))

    with Record():
        _count_batches_together(model, model)(torch.randn(4, 2))
    assert [norm.num_batches_tracked.item() for norm in model] == [1, 0, 1]
    assert calls.count("aten._foreach_add_.Scalar") == 1 and calls.count("aten.add_.Tensor") == 1


@pytest.mark.parametrize(
    "words, reason",
    [
        ("SOLVER.ACCUMULATION_STEPS 2", "SOLVER.ACCUMULATION_STEPS 2 with SOLVER.MINING global"),
        ("HANDLERS ('watch',)", "HANDLERS watch may change a batch"),
        ("LOSS.PML.NAME SupConLoss LOSS.PML.WEIGHT 1", "LOSS.PML SupConLoss may read values"),
        ("SOLVER.FUSED none", "SOLVER.FUSED is none"),
    ],
)
def test_steps_that_cannot_be_captured_run_eagerly_and_say_why(words, reason, caplog):
    cfg = load_config(None, words.split())
    with caplog.at_level(logging.INFO, logger="ember.train"):
        assert build_step_mode(cfg, torch.device("cuda")) == "eager"
    (line,) = caplog.messages
    assert line.startswith(f"SOLVER.STEP auto: the step runs eagerly, because {reason}")


def test_auto_is_a_graph_on_gpus_and_eager_on_cpus():
    cfg = load_config()
    assert build_step_mode(cfg, torch.device("cuda")) == "graph"
    assert build_step_mode(cfg, CPU) == "eager"
    assert build_step_mode(cfg, CPU, rehearse=True) == "graph"


def test_tensor_cores_do_not_shorten_float32():
    seed_everything(load_config())
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
