"""Part 2: small trainings in all precisions, resumed, and tested on the GPU and on the CPU."""

import json
import os
from itertools import product
from pathlib import Path

import torch
from ember_reid.config import load_config
from ember_reid.engine.build import read_test_config
from ember_reid.engine.checkpoint import LAST, PREVIOUS, load_checkpoint
from ember_reid.main import test, train
from ember_reid.tools.check_gpu.results import Result
from ember_reid.tools.check_gpu.setting import PLUGIN, Setting, tiny_images, tiny_words

PRECISIONS = {
    "float32": (),
    "bfloat16": ("SOLVER.FP16", "True", "SOLVER.AMP_DTYPE", "bfloat16"),
    "float16": ("SOLVER.FP16", "True", "SOLVER.AMP_DTYPE", "float16"),
}
# Largest difference of mAP between devices.
TOLERANCE = 1e-3


def check(setting: Setting, result: Result) -> None:
    """Train, resume and test."""
    images = tiny_images(setting)
    precisions = ("float32",) if setting.rehearse else tuple(PRECISIONS)
    for precision, step in product(precisions, setting.steps):
        name = f"{precision}-{step}"
        words = [*tiny_words(setting, images, name), *PRECISIONS[precision]]
        words += ["SOLVER.STEP", step, "SOLVER.CHECKPOINT_MIN_SECONDS", "0"]
        folder = setting.folder / name
        try:
            train(load_config(None, words))
        except Exception as error:
            result.check(f"training, {name}", False, f"{type(error).__name__}: {error}")
            continue
        warnings = [line for line in _lines(folder / "log.txt") if "WARNING" in line]
        result.check(f"training, {name}", not warnings, " ".join(warnings) or "no warning")
        _check_resume(words, folder, result)
        _check_test(folder, result, device=setting.device)


def _check_resume(words: list[str], folder: Path, result: Result) -> None:
    """Repeat the second epoch from the checkpoint before the last one."""
    checkpoints = folder / "checkpoints"
    undisturbed = load_checkpoint(checkpoints / LAST)["model"]
    os.replace(checkpoints / PREVIOUS, checkpoints / LAST)
    train(load_config(None, words), resume=True)
    resumed = load_checkpoint(checkpoints / LAST)["model"]
    different = [name for name in resumed if not torch.equal(resumed[name], undisturbed[name])]
    # Without DETERMINISTIC, sums of a GPU may differ in their last bits.
    gap = max(
        (float((resumed[n].double() - undisturbed[n].double()).abs().max()) for n in resumed),
        default=0.0,
    )
    detail = f"{len(different)} of {len(resumed)} tensors differ, by at most {gap:.1e}"
    result.check(f"resumed = undisturbed, {folder.name}", gap < 1e-2, detail)


def _check_test(folder: Path, result: Result, *, device: str) -> None:
    """Compare the scores of the last checkpoint on both devices."""
    scores = []
    for name in (device, "cpu"):
        out = folder / f"test-{name}"
        words = ["TEST.WEIGHT", str(folder / "checkpoints" / LAST), "DEVICE", name]
        words += ["IMPORTS", f"('{PLUGIN}',)", "OUTPUT_DIR", str(out), "SOLVER.FP16", "False"]
        test(read_test_config(None, words))
        content = json.loads((out / "results.json").read_text(encoding="utf-8"))
        scores.append(next(iter(content.values()))["mAP"])
    result.at_most(f"mAP, GPU - CPU, {folder.name}", abs(scores[0] - scores[1]), TOLERANCE)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
