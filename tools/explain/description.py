"""Describe a recipe in words: network, data, schedule, losses, augmentation and evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

from ember_reid.config import Config
from ember_reid.config.recipe_headers import RecipeHeader
from ember_reid.tools.explain.cost import Cost

MIB = 2**20

# Losses and the sections of their settings.
LOSSES = {
    "cross-entropy": "LOSS.CE",
    "triplet": "LOSS.TRIPLET",
    "center": "LOSS.CENTER",
    "circle": "LOSS.CIRCLE",
    "pairwise CosFace": "LOSS.COSFACE",
    "teacher's logits": "KD.LOGITS",
    "teacher's feature maps": "KD.FEATURE",
    "teacher's distances": "KD.DISTANCES",
    "teacher's embedding": "KD.EMBEDDING",
    "self-distillation": "KD.SELF",
}

AUGMENTATIONS = {
    "horizontal flip": "FLIP_PROB",
    "random erasing": "RE_PROB",
    "AutoAugment": "AUTOAUG_PROB",
    "affine": "AFFINE_PROB",
    "AugMix": "AUGMIX_PROB",
    "random patch": "PATCH_PROB",
    "color jitter": "JITTER_PROB",
}


@dataclass(frozen=True)
class Section:
    """One heading and its lines."""

    title: str
    lines: tuple[str, ...]


def describe(
    cfg: Config, *, cost: Cost, mean_flops: float, iterations: int | None
) -> list[Section]:
    """The sections of an explanation.

    Args:
        cfg: a checked configuration.
        cost: of the network for one image, see `measure_cost`.
        mean_flops: of the forward passes of all training images, see `mean_training_flops`.
        iterations: iterations per epoch; None if the dataset is not on this machine.
    """
    return [
        Section("Network", _network(cfg, cost)),
        Section("Data", _data(cfg)),
        Section("Schedule", _schedule(cfg, iterations, mean_flops)),
        Section("Losses", _losses(cfg)),
        Section("Augmentation", _augmentation(cfg)),
        Section("Evaluation", _evaluation(cfg)),
    ]


def describe_score(headers: Sequence[RecipeHeader]) -> Section:
    """The expected score, its source, and the differences from the program that was measured.

    Args:
        headers: those of the base recipes in merging order, then that of the recipe.
    """
    recipe = headers[-1]
    lines = [
        f"published{f' ({score.condition})' if score.condition else ''}: {score.text}"
        for score in recipe.scores
    ]
    if not recipe.scores:
        lines.append("no published score")
    named = {"source": recipe.source, "measured here": recipe.measured}
    lines += [f"{name}: {text}" for name, text in named.items() if text]
    lines += [f"settings of: {header.program}" for header in headers if header.program]
    lines += [f"differs: {header.differs}" for header in headers if header.differs]
    return Section("Expected score", tuple(lines))


def _network(cfg: Config, cost: Cost) -> tuple[str, ...]:
    backbone, head = cfg.MODEL.BACKBONE, cfg.MODEL.HEAD
    batch = cfg.SOLVER.IMS_PER_BATCH // cfg.SOLVER.ACCUMULATION_STEPS * cfg.INPUT.NUM_FRAMES
    start = "random weights" if backbone.WEIGHTS == "none" else f"weights: {backbone.WEIGHTS}"
    lines = [
        f"{backbone.NAME}, {start}, last stride {backbone.LAST_STRIDE}",
        f"{cfg.MODEL.POOL.NAME} pooling, neck {head.NECK}, {head.CLASSIFIER} classifier",
        f"{cost.parameters / 1e6:.2f} M parameters, {cost.flops / 1e9:.2f} GFLOP per image "
        "(forward pass, a multiply-add counts as two)",
        f"{cost.activation_bytes / MIB:.1f} MiB of float32 activations per image, "
        f"{batch * cost.activation_bytes / MIB:.0f} MiB for {batch} images at a time",
    ]
    if head.EMBEDDING_DIM:
        lines.insert(2, f"embedding reduced to {head.EMBEDDING_DIM} dimensions ({head.REDUCTION})")
    if cfg.SOLVER.FREEZE and cfg.SOLVER.FREEZE_ITERS:
        frozen = ", ".join(cfg.SOLVER.FREEZE)
        lines.append(f"frozen for the first {cfg.SOLVER.FREEZE_ITERS} iterations: {frozen}")
    return tuple(lines)


def _data(cfg: Config) -> tuple[str, ...]:
    height, width = cfg.INPUT.SIZE_TRAIN
    batch, instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCES
    if cfg.DATALOADER.SAMPLER == "random":
        content = f"{batch} random images"
    else:
        content = f"{batch // instances} identities x {instances} images"
    lines = [
        f"train on {', '.join(cfg.DATASETS.NAMES)}; "
        f"test on {', '.join(cfg.DATASETS.TESTS or cfg.DATASETS.NAMES)}",
        f"images {height} x {width} pixels (height x width){_scales(cfg)}",
        f"a batch: {content} (sampler {cfg.DATALOADER.SAMPLER})",
    ]
    if cfg.INPUT.NUM_FRAMES > 1:
        lines.append(f"{cfg.INPUT.NUM_FRAMES} frames per sample, {cfg.INPUT.FRAME_SAMPLING}")
    return tuple(lines)


def _scales(cfg: Config) -> str:
    """The phases of progressive resizing; empty without it."""
    scales, steps = cfg.INPUT.SCALES, cfg.INPUT.SCALE_STEPS
    if tuple(scales) == (1.0,):
        return ""
    ends = [f" until {step:.0%} of the training" for step in steps] + [""]
    phases = [f"{scale:g} of it{end}" for scale, end in zip(scales, ends, strict=True)]
    return f", resized to {', then '.join(phases)}"


def _schedule(cfg: Config, iterations: int | None, mean_flops: float) -> tuple[str, ...]:
    solver = cfg.SOLVER
    if iterations is None:
        length = f"{solver.MAX_EPOCHS} epochs (iterations are unknown without the dataset)"
    else:
        total = solver.MAX_EPOCHS * iterations
        num_images = total * solver.IMS_PER_BATCH * cfg.INPUT.NUM_FRAMES
        length = (
            f"{solver.MAX_EPOCHS} epochs of {iterations} iterations, {total} in total; "
            f"{num_images} images, {3 * mean_flops * num_images / 1e12:.3g} TFLOP (three times "
            "those of the forward passes)"
        )
    if solver.SCHEDULE == "multistep":
        shape = f"multiplied by {solver.GAMMA:g} at epochs {', '.join(map(str, solver.STEPS))}"
    else:
        delay = (
            f"constant until epoch {solver.DELAY_EPOCHS:g}, then " if solver.DELAY_EPOCHS else ""
        )
        shape = f"{delay}{solver.SCHEDULE} decay to {solver.ETA_MIN_FACTOR:g} of it"
    warmup = (
        f"{solver.WARMUP_METHOD} warm-up from {solver.WARMUP_FACTOR:g} of it over "
        f"{solver.WARMUP_EPOCHS:g} epochs"
        if solver.WARMUP_EPOCHS
        else "no warm-up"
    )
    precision = f"mixed precision ({solver.AMP_DTYPE} on a GPU)" if solver.FP16 else "float32"
    return (
        length,
        f"{solver.OPTIMIZER}, learning rate {solver.BASE_LR:g}, weight decay "
        f"{solver.WEIGHT_DECAY:g}, {precision}",
        f"{warmup}, then {shape}",
    )


def _losses(cfg: Config) -> tuple[str, ...]:
    lines = []
    for name, key in LOSSES.items():
        settings = cfg
        for part in key.split("."):
            settings = settings[part]
        if settings.WEIGHT:
            others = ", ".join(
                f"{option.lower()} {_plain(value)}"
                for option, value in settings.items()
                if option != "WEIGHT" and value not in ((), "")
            )
            lines.append(f"{settings.WEIGHT:g} x {name}" + (f" ({others})" if others else ""))
    for kind in ("SIMILARITY", "DISTANCE", "ANGLE"):
        if weight := cfg.KD.RELATION[f"{kind}_WEIGHT"]:
            lines.append(f"{weight:g} x teacher's pairwise relations ({kind.lower()})")
    if cfg.KD.TEACHERS:
        lines.append(
            f"teachers: {', '.join(cfg.KD.TEACHERS)} ({cfg.KD.TEACHER_STATISTICS} statistics)"
        )
    return tuple(lines)


def _augmentation(cfg: Config) -> tuple[str, ...]:
    lines = [
        f"{name}: probability {cfg.INPUT[key]:g}"
        for name, key in AUGMENTATIONS.items()
        if cfg.INPUT[key]
    ]
    if cfg.INPUT.PADDING:
        lines.append(f"padding by {cfg.INPUT.PADDING} pixels, then a random crop")
    return tuple(lines) or ("none",)


def _evaluation(cfg: Config) -> tuple[str, ...]:
    test = cfg.TEST
    lines = [
        f"embedding {test.NECK_FEAT} the neck, {test.METRIC} distance, protocol {test.PROTOCOL}, "
        f"average precision: {test.AVERAGE_PRECISION}"
    ]
    if test.FLIP:
        lines.append("embeddings of an image and its mirror image are averaged")
    if test.RE_RANKING:
        rerank = test.RE_RANK
        lines.append(
            f"k-reciprocal re-ranking: k1 {rerank.K1}, k2 {rerank.K2}, lambda {rerank.LAMBDA:g}"
        )
    return tuple(lines)


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return "/".join(_plain(part) for part in value)
    return str(value)
