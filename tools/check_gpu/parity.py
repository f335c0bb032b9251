"""Part 3: the same numbers on both devices, and the same bits with a captured step."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from ember_reid.config import load_config
from ember_reid.data.build import build_augmentation
from ember_reid.engine.checkpoint import save_checkpoint
from ember_reid.engine.events import TrainingEvents, step_output
from ember_reid.engine.integrity import copy_to_cpu, named_tensors
from ember_reid.engine.run.build import TrainingRun
from ember_reid.modeling import build_model
from ember_reid.tools.check_gpu.results import Result
from ember_reid.tools.check_gpu.setting import (
    PLAIN_NETWORK,
    Setting,
    run_iterations,
    tiny_images,
    tiny_words,
    training,
)
from torch import Tensor

TOLERANCE = 1e-4
LOSSES = (
    "LOSS.CENTER.WEIGHT 0.1 LOSS.CIRCLE.WEIGHT 1 LOSS.COSFACE.WEIGHT 1 LOSS.XBM.SIZE 16 "
    f"MODEL.BACKBONE.NAME {PLAIN_NETWORK}"
)
HALF = "SOLVER.FP16 True SOLVER.AMP_DTYPE"
# Eight steps of each are compared bit by bit. The network has dropout.
CASES = {
    "plain": "",
    "running average": "SOLVER.EMA_DECAY 0.9",
    "clipping": "SOLVER.CLIP_NORM 1",
    "end of a freeze": "SOLVER.FREEZE ('backbone',) SOLVER.FREEZE_ITERS 4",
    "centers": "LOSS.CENTER.WEIGHT 0.1",
    "cross-batch memory": "LOSS.XBM.SIZE 16",
    "two parts": "SOLVER.ACCUMULATION_STEPS 2 SOLVER.MINING local",
    "SGD": "SOLVER.OPTIMIZER sgd",
    "bfloat16": f"{HALF} bfloat16",
    "float16": f"{HALF} float16",
    "infinity in float16": f"{HALF} float16",
    "distilled maps": "MODEL.BACKBONE.NAME resnet18 KD.FEATURE.WEIGHT 1e-3 KD.LOGITS.WEIGHT 1",
}
REHEARSED = ("plain", "running average")
AUGMENTATIONS = {
    "flip, crop, erase": "INPUT.FLIP_PROB 0.5 INPUT.RE_PROB 0.5",
    "color jitter": "INPUT.JITTER_PROB 1",
}


def check(setting: Setting, result: Result) -> None:
    """Compare augmentation, losses, gradients and steps."""
    # cuBLAS reads this when it is used first; see DETERMINISTIC.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    images = tiny_images(setting)
    words = tiny_words(setting, images, "parity")
    for name, extra in AUGMENTATIONS.items():
        _check_augmentation(name, [*words, *extra.split()], setting, result)
    with _attempt(result, "losses and gradients, GPU - CPU"):
        _check_losses([*words, *LOSSES.split()], setting, result)
    # DETERMINISTIC stays on in this process, so these come last.
    teacher = _write_teacher(words, setting.folder / "teacher.pt")
    for name in REHEARSED if setting.rehearse else CASES:
        case = CASES[name].split()
        if name == "distilled maps":
            case += ["KD.TEACHERS", f"('{teacher}',)"]
        with _attempt(result, f"captured = eager, {name}"):
            _check_steps(name, [*words, *case, "DETERMINISTIC", "True"], result)


@contextmanager
def _attempt(result: Result, name: str) -> Iterator[None]:
    """Record an error as a failed check, and continue after the block."""
    try:
        yield
    except Exception as error:
        result.check(name, False, f"{type(error).__name__}: {error}")


def _check_augmentation(name: str, words: list[str], setting: Setting, result: Result) -> None:
    augment = build_augmentation(load_config(None, words))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 3, 32, 16), dtype=torch.uint8, generator=generator)
    outputs = [
        augment(images.to(device), torch.Generator().manual_seed(1)).cpu()
        for device in (setting.device, "cpu")
    ]
    result.record(f"different values after {name}", int((outputs[0] != outputs[1]).sum()))
    gap = float((outputs[0] - outputs[1]).abs().max())
    result.at_most(f"augmentation, GPU - CPU, {name}", gap, TOLERANCE)


def _check_losses(words: list[str], setting: Setting, result: Result) -> None:
    """One step in float32 on both devices, without TF32."""
    precision = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    found: list[dict[str, Tensor]] = []
    for device in (setting.device, "cpu"):
        with training([*words, "DEVICE", device]) as run:
            values: dict[str, Tensor] = {}
            run.trainer.add_event_handler(
                TrainingEvents.BACKWARD_COMPLETED, _record_gradients(run, values)
            )
            run_iterations(run, 1)
            for name, loss in step_output(run.trainer).losses.items():
                values[f"loss {name}"] = loss.detach().cpu()
            found.append(values)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = precision
    for kind in ("loss", "gradient"):
        gaps = {
            name: float((found[0][name] - value).abs().max() / value.abs().max().clamp_min(1e-6))
            for name, value in found[1].items()
            if name.startswith(kind)
        }
        worst = max(gaps, key=lambda name: gaps[name])
        result.at_most(f"{kind}, GPU - CPU, relative ({worst})", gaps[worst], TOLERANCE)


def _record_gradients(run: TrainingRun, values: dict[str, Tensor]) -> Callable[[], None]:
    def record() -> None:
        for name, parameter in run.model.named_parameters():
            if parameter.grad is not None:
                values[f"gradient {name}"] = parameter.grad.detach().cpu().clone()

    return record


def _check_steps(name: str, words: list[str], result: Result) -> None:
    overflows = name.startswith("infinity")
    states = [
        _train([*words, "SOLVER.STEP", step], overflows=overflows) for step in ("eager", "graph")
    ]
    different = [path for path, tensor in states[0].items() if not _equal(tensor, states[1][path])]
    detail = f"{len(different)} of {len(states[0])} tensors differ {different[:3]}"
    same_names = states[0].keys() == states[1].keys()
    result.check(f"captured = eager, {name}", same_names and not different, detail)


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool(((first == second) | (first != first)).all())


def _train(words: Sequence[str], *, overflows: bool) -> dict[str, Tensor]:
    """All tensors of a run after eight steps, by their path.

    Raises:
        RuntimeError: the step was not captured.
    """
    with training(words) as run:
        scaler = run.parts.scaler
        if overflows and scaler.is_enabled():
            # Gradients overflow until the scale has been halved several times.
            scaler.load_state_dict(scaler.state_dict() | {"scale": 2.0**40})
        run_iterations(run, 8)
        if run.captured is not None and not run.captured.runner.num_replays:
            raise RuntimeError(f"the step was not captured: {run.captured.runner.failure}")
        content = {
            "model": run.model.state_dict(),
            "average": run.ema.model.state_dict(),
            "criterion": run.criterion.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
            "losses": dict(step_output(run.trainer).losses),
        }
        return {path: tensor.clone() for path, tensor in named_tensors(copy_to_cpu(content))}


def _write_teacher(words: Sequence[str], path: Path) -> Path:
    cfg = load_config(None, [*words, "MODEL.BACKBONE.NAME", "resnet18"])
    torch.manual_seed(0)
    model = build_model(cfg, num_classes=8, pretrained=False)
    classes = [["quickstart", str(pid)] for pid in range(1, 9)]
    content = {"num_classes": 8, "classes": classes, "model": model.state_dict()}
    save_checkpoint(path, {"config": cfg.dump(), **content})
    return path
