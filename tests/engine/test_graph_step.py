"""A step that is structured for a CUDA graph gives the bits of the plain step.

On a CPU, the graph is rehearsed: its stand-in replays by calling the recorded function.
"""

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.engine.handlers.build import build_control, build_handlers
from ember_reid.engine.run.build import TrainingRun, build_training_run, seed_everything
from ignite.engine import Events

CPU = torch.device("cpu")
RECIPES = {
    "plain": "",
    "ema and clipping": "SOLVER.EMA_DECAY 0.9 SOLVER.CLIP_NORM 0.5",
    "end of a freeze": "SOLVER.FREEZE ('backbone',) SOLVER.FREEZE_ITERS 4",
    "centers and memory": "LOSS.CENTER.WEIGHT 0.1 LOSS.XBM.SIZE 32 LOSS.XBM.START 1",
    "sgd": "SOLVER.OPTIMIZER sgd SOLVER.SCHEDULE_BY iteration SOLVER.SCHEDULE cosine",
    "averaged teacher": "KD.EMA.ENABLED True KD.LOGITS.WEIGHT 1",
    "clips and views": "INPUT.NUM_FRAMES 3 INPUT.FRAME_SAMPLING multiview KD.EMA.ENABLED True "
    "KD.LOGITS.WEIGHT 1 KD.STUDENT_VIEWS 2",
    "microbatches": "SOLVER.ACCUMULATION_STEPS 2 SOLVER.MINING local",
    "policies": "INPUT.AUTOAUG_PROB 0.5 INPUT.JITTER_PROB 0.5",
    "policies without jitter": "INPUT.PATCH_PROB 0.5",
    "no cache": "DATALOADER.CACHE none",
    "half precision": "SOLVER.FP16 True SOLVER.CPU_PRECISION bfloat16",
}


def create(recipe, words: str, folder, *, rehearse: bool) -> TrainingRun:
    """A run with all handlers attached; 4 epochs of 4 iterations."""
    folder.mkdir()
    periods = "SOLVER.MAX_EPOCHS 4 SOLVER.EVAL_PERIOD 100 SOLVER.CHECKPOINT_PERIOD 100"
    cfg = load_config(recipe, [*words.split(), *periods.split(), "OUTPUT_DIR", str(folder)])
    seed_everything(cfg)
    run = build_training_run(cfg, CPU, evaluate=False, rehearse=rehearse)
    assert (run.captured is not None) == rehearse
    return run


def execute(run: TrainingRun, *, until: int = 10) -> list[dict[str, float]]:
    """Train up to an iteration; returns the losses of each iteration."""
    for handler in build_handlers(run, build_control(run)):
        handler.attach(run.trainer)
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
