"""Part 6: images per second of training and of inference, and the targets."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from ember_reid.config import Config, load_config
from ember_reid.data.build import build_normalization
from ember_reid.engine.build import build_amp_dtype, build_device
from ember_reid.engine.fuse_conv_bn import fused_copy
from ember_reid.engine.inference import CapturedInference
from ember_reid.engine.run.build import seed_everything
from ember_reid.modeling import build_model
from ember_reid.tools.benchmark.machine import seconds_per_call
from ember_reid.tools.benchmark.train import measure
from ember_reid.tools.check_gpu.results import Result
from ember_reid.tools.check_gpu.setting import Setting, tiny_words, write_images
from torch import Tensor, nn

# Images per second of BoT ResNet-50, 256x128, bfloat16, on one H200.
TARGET_64, TARGET_256, TARGET_INFERENCE = 6500, 7500, 25_000
BOT = {
    "MODEL.BACKBONE.NAME": "resnet50",
    "INPUT.SIZE_TRAIN": "(256,128)",
    "INPUT.SIZE_TEST": "(256,128)",
    "INPUT.PADDING": "10",
    "DATALOADER.NUM_INSTANCES": "4",
    "SOLVER.IMS_PER_BATCH": "64",
    "SOLVER.FP16": "True",
    "SOLVER.AMP_DTYPE": "bfloat16",
    "SOLVER.LOG_PERIOD": "20",
    "SOLVER.CHECKPOINT_PERIOD": "10000",
}
LARGE = "SOLVER.IMS_PER_BATCH 256"
SAVES = "SOLVER.CHECKPOINT_PERIOD 1 SOLVER.CHECKPOINT_MIN_SECONDS 0"


def check(setting: Setting, result: Result) -> None:
    """Measure training and inference; the most important numbers come first."""
    few, many = _write_datasets(setting)
    fast = setting.steps[-1]
    targets = {"batch 64, graph": TARGET_64, "batch 256, graph": TARGET_256}
    cases: dict[str, tuple[Path, str, str]] = {
        "batch 64, graph": (many, fast, ""),
        "batch 256, graph": (many, fast, LARGE),
        "batch 64, graph, with the end of an epoch": (many, fast, SAVES),
        "batch 64, eager": (few, "eager", ""),
        "batch 64, graph, running average": (few, fast, "SOLVER.EMA_DECAY 0.999"),
        "batch 64, graph, AutoAugment": (few, fast, "INPUT.AUTOAUG_PROB 0.1"),
        "batch 64, graph, distilled by its own average": (
            few,
            fast,
            "KD.EMA.ENABLED True KD.LOGITS.WEIGHT 1",
        ),
        "batch 64, compile": (few, "compile", ""),
    }
    if setting.rehearse:
        cases = {name: case for name, case in cases.items() if name in targets}
    # Compiling takes longest, so inference comes before it.
    *first, last = cases.items()
    for name, case in first:
        _measure_training(name, case, targets.get(name), setting, result)
    _measure_inference(_words(setting, few, "inference", ""), setting, result)
    _measure_training(last[0], last[1], targets.get(last[0]), setting, result)


def _write_datasets(setting: Setting) -> tuple[Path, Path]:
    """Small files, enlarged when they are read: some images, and as many as Market-1501 has."""
    num_ids = 8 if setting.rehearse else 256
    few = write_images(setting.folder / "few", num_ids=num_ids, images_per_id=16)
    if setting.rehearse:
        return few, few
    return few, write_images(setting.folder / "many", num_ids=751, images_per_id=17)


def _words(setting: Setting, images: Path, step: str, extra: str) -> list[str]:
    values = {} if setting.rehearse else BOT
    words = [*tiny_words(setting, images, "speed"), "SOLVER.MAX_EPOCHS", "10000"]
    words += ["SOLVER.EVAL_PERIOD", "10000", *(word for pair in values.items() for word in pair)]
    if step != "inference":
        words += ["SOLVER.STEP", step]
    return [*words, *([] if setting.rehearse else extra.split())]


def _measure_training(
    name: str,
    case: tuple[Path, str, str],
    target: float | None,
    setting: Setting,
    result: Result,
) -> None:
    images, step, extra = case
    cfg = load_config(None, _words(setting, images, step, extra))
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    epoch = 220 if SAVES in extra else 100
    iterations, warmup = (2, 1) if setting.rehearse else (epoch, 10)
    try:
        speeds = measure(cfg, iterations=iterations, warmup=warmup, clock=time.perf_counter)
    except Exception as error:
        result.check(name, False, f"{type(error).__name__}: {error}")
        return
    result.record(
        name,
        f"{speeds.end_to_end:,.0f} images/s end to end, step alone {speeds.step:,.0f}, loader "
        f"alone {speeds.loader:,.0f}, first step after {speeds.first_step:.1f} s, "
        f"{speeds.memory:,.0f} MiB",
    )
    if target is not None and not setting.rehearse:
        result.at_least(name, speeds.end_to_end, target, unit="images/s")


def _measure_inference(words: Sequence[str], setting: Setting, result: Result) -> None:
    """The network as it is, with fused batch norms, and captured; from uint8 images."""
    cfg = load_config(None, words)
    device, amp_dtype = build_device(cfg), build_amp_dtype(cfg, build_device(cfg))
    seed_everything(cfg)
    model = build_model(cfg, num_classes=751, pretrained=False).eval()
    model = model.to(device).to(memory_format=torch.channels_last)
    fused = fused_copy(model, amp_dtype=amp_dtype)
    rates = []
    for batch in (4,) if setting.rehearse else (128, 512):
        size = (batch, 3, *cfg.INPUT.SIZE_TEST)
        images = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
        functions: dict[str, Callable[[Tensor], Tensor]] = {
            "eager": _embedding(model, cfg, amp_dtype),
            "fused": _embedding(fused, cfg, amp_dtype),
        }
        if not setting.rehearse:
            functions["captured"] = CapturedInference(functions["fused"], device)
        for name, embed in functions.items():
            rate = batch / seconds_per_call(partial(embed, images), 2 if setting.rehearse else 30)
            result.record(f"inference, {name}, batch {batch}", f"{rate:,.0f} images/s")
            rates.append(rate)
    if not setting.rehearse:
        result.at_least("inference", max(rates), TARGET_INFERENCE, unit="images/s")


def _embedding(
    network: nn.Module, cfg: Config, amp_dtype: torch.dtype | None
) -> Callable[[Tensor], Tensor]:
    normalize = build_normalization(cfg)

    def embed(images: Tensor) -> Tensor:
        with (
            torch.inference_mode(),
            torch.autocast(images.device.type, dtype=amp_dtype, enabled=amp_dtype is not None),
        ):
            return network(normalize(images)).embedding.float()

    return embed
