"""What each configuration key may contain: a range, choices, or text. One entry per key."""

import math
from dataclasses import dataclass
from typing import Any

from ember_reid.config.messages import show

MAX_ITEMS = 1000


@dataclass(frozen=True)
class Flag:
    """True or False."""

    def error(self, value: Any) -> str:
        """Return what is allowed if the value is not; empty if it is."""
        return "" if isinstance(value, bool) else self.describe()

    def describe(self) -> str:
        return "True or False"


@dataclass(frozen=True)
class Choices:
    """One of a few values, or a list of different ones.

    Attributes:
        items: whether the value is a list.
    """

    values: tuple
    items: bool = False

    def error(self, value: Any) -> str:
        """Return what is allowed if the value is not; empty if it is."""
        values = value if self.items else (value,)
        ok = all(item in self.values for item in values) and len(set(values)) == len(values)
        return "" if ok else self.describe()

    def describe(self) -> str:
        choices = ", ".join(map(str, self.values))
        return f"a list of {choices}, each at most once" if self.items else choices


@dataclass(frozen=True)
class Range:
    """A finite number, or a list of them.

    Attributes:
        low, high: the bounds.
        above: whether `low` itself is excluded.
        below: whether `high` itself is excluded.
        lengths: the allowed lengths of a list; () is a single number, (-1,) is any length.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    lengths: tuple[int, ...] = ()

    def error(self, value: Any) -> str:
        """Return what is allowed if the value is not; empty if it is."""
        values = value if self.lengths else (value,)
        allowed_length = -1 in self.lengths or not self.lengths or len(values) in self.lengths
        if len(values) > MAX_ITEMS:
            return f"at most {MAX_ITEMS} numbers"
        ok = allowed_length and all(self._contains(number) for number in values)
        return "" if ok else self.describe()

    def _contains(self, number: Any) -> bool:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            return False
        if isinstance(number, float) and not math.isfinite(number):
            return False
        too_low = number <= self.low if self.above else number < self.low
        too_high = number >= self.high if self.below else number > self.high
        return not (too_low or too_high)

    def describe(self) -> str:
        low = f"above {self.low:g}" if self.above else f"{self.low:g}"
        text = f"{low} to {'below ' if self.below else ''}{_plain(self.high)}"
        if not self.lengths:
            return text
        if -1 in self.lengths:
            return f"a list of numbers, each {text}"
        return f"{' or '.join(map(str, self.lengths))} numbers, each {text}"


@dataclass(frozen=True)
class Text:
    """Text without control characters, or a list of texts.

    Attributes:
        path: whether a leading `~` means the home folder.
        items: whether the value is a list of texts.
        empty: whether the text may be empty.
    """

    path: bool = False
    items: bool = False
    empty: bool = True

    def error(self, value: Any) -> str:
        """Return what is allowed if the value is not; empty if it is."""
        values = value if self.items else (value,)
        ok = len(values) <= MAX_ITEMS and all(self._allows(text) for text in values)
        return "" if ok else self.describe()

    def _allows(self, text: Any) -> bool:
        return (
            isinstance(text, str)
            and len(text) <= 4096
            and not any(ord(character) < 32 for character in text)
            and (self.empty or bool(text.strip()))
        )

    def describe(self) -> str:
        what = "a list of texts" if self.items else "text" if self.empty else "text, not empty"
        return f"{what}, without control characters"


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:g}"


Check = Flag | Choices | Range | Text

_FLAG, _TEXT, _TEXTS = Flag(), Text(), Text(items=True)
_PROBABILITY = Range(0, 1)
_WEIGHT = Range(0, 1e6)
_DECAY = Range(0, 1, below=True)
_SIZE = Range(1, 8192, lengths=(2,))
_PERIOD = Range(1, 1e9)

CHECKS: dict[str, Check] = {
    "OUTPUT_DIR": Text(path=True, empty=False),
    "OVERWRITE": _FLAG,
    "SEED": Range(0, 2**32 - 1),
    "IMPORTS": Text(items=True, empty=False),
    "HANDLERS": Text(items=True, empty=False),
    "DETERMINISTIC": _FLAG,
    "DEVICE": Choices(("auto", "cpu", "cuda")),
    "NUM_PROCESSES": Range(0, 1024),
    "NUM_THREADS": Range(0, 4096),
    "MODEL.BACKBONE.NAME": Text(empty=False),
    "MODEL.BACKBONE.WEIGHTS": Text(path=True, empty=False),
    "MODEL.BACKBONE.PARTIAL": _FLAG,
    "MODEL.BACKBONE.LAST_STRIDE": Choices((1, 2)),
    "MODEL.BACKBONE.WIDTH": Range(0, 16, above=True),
    "MODEL.BACKBONE.STEM_RELU": _FLAG,
    "MODEL.BACKBONE.STEM_POOL": Choices(("padded", "ceil")),
    "MODEL.BACKBONE.LAST_DILATION": Choices((1, 2)),
    "MODEL.BACKBONE.LAST_RELU": _FLAG,
    "MODEL.BACKBONE.NON_LOCAL": Range(0, 64, lengths=(0, 4)),
    "MODEL.BACKBONE.NON_LOCAL_WIDTH": Range(0, 8192),
    "MODEL.POOL.NAME": Choices(("avg", "max", "avgmax", "gem")),
    "MODEL.POOL.GEM_P": Range(0, 100, above=True),
    "MODEL.POOL.GEM_LEARNABLE": _FLAG,
    # Plug-ins can add heads; modeling knows the names.
    "MODEL.HEAD.NAME": Text(empty=False),
    "MODEL.HEAD.NECK": Choices(("bnneck", "none")),
    "MODEL.HEAD.EMBEDDING_DIM": Range(0, 65536),
    "MODEL.HEAD.REDUCTION": Choices(("linear", "bn_relu")),
    "MODEL.HEAD.METRIC_FEATURE": Choices(("before", "after")),
    "MODEL.HEAD.CLASSIFIER": Choices(("linear", "cosine")),
    "MODEL.HEAD.SCALE": Range(0, 1e4, above=True),
    "LOSS.CE.WEIGHT": _WEIGHT,
    "LOSS.CE.EPSILON": _PROBABILITY,
    "LOSS.CE.SMOOTH_OVER": Choices(("all", "others")),
    "LOSS.CE.MARGIN_TYPE": Choices(("none", "arcface", "cosface", "circle")),
    "LOSS.CE.MARGIN": Range(0, 10),
    "LOSS.TRIPLET.WEIGHT": _WEIGHT,
    "LOSS.TRIPLET.MARGIN": Range(0, 1e6),
    "LOSS.TRIPLET.MINING": Choices(("hard", "weighted")),
    "LOSS.TRIPLET.FORM": Choices(("exact", "published")),
    "LOSS.TRIPLET.NORMALIZE": _FLAG,
    "LOSS.CENTER.WEIGHT": _WEIGHT,
    "LOSS.CENTER.LR": Range(0, 1000),
    "LOSS.CIRCLE.WEIGHT": _WEIGHT,
    "LOSS.CIRCLE.MARGIN": Range(0, 10),
    "LOSS.CIRCLE.GAMMA": Range(0, 1e6, above=True),
    "LOSS.COSFACE.WEIGHT": _WEIGHT,
    "LOSS.COSFACE.MARGIN": Range(0, 10),
    "LOSS.COSFACE.GAMMA": Range(0, 1e6, above=True),
    "LOSS.XBM.SIZE": Range(0, 1e7),
    "LOSS.XBM.WEIGHT": _WEIGHT,
    "LOSS.XBM.START": Range(0, 1e12),
    "LOSS.PLUGIN.NAME": Text(),
    "LOSS.PLUGIN.WEIGHT": _WEIGHT,
    "LOSS.PLUGIN.ARGS": Text(),
    "LOSS.PML.NAME": Text(),
    "LOSS.PML.WEIGHT": _WEIGHT,
    "LOSS.PML.ARGS": Text(),
    "KD.TEACHERS": Text(path=True, items=True, empty=False),
    "KD.TEACHER_STATISTICS": Choices(("running", "batch")),
    "KD.STUDENT_WEIGHTS": Text(path=True),
    "KD.REINIT": Choices(("none", "head", "last-stage")),
    "KD.STUDENT_VIEWS": Range(0, 1024),
    "KD.EMA.ENABLED": _FLAG,
    "KD.EMA.DECAY": _DECAY,
    "KD.EMA.RAMP": _FLAG,
    "KD.LOGITS.WEIGHT": _WEIGHT,
    "KD.LOGITS.KIND": Choices(("symmetric", "kl", "mse")),
    "KD.LOGITS.TEMPERATURE": Range(0, 1e4, above=True),
    "KD.FEATURE.WEIGHT": _WEIGHT,
    "KD.FEATURE.FORM": Choices(("intended", "published")),
    "KD.FEATURE.STAGE_WEIGHTS": Range(0, 1e6, lengths=(4,)),
    "KD.FEATURE.EVERY": Range(1, 1e6),
    "KD.DISTANCES.WEIGHT": _WEIGHT,
    "KD.RELATION.SIMILARITY_WEIGHT": _WEIGHT,
    "KD.RELATION.DISTANCE_WEIGHT": _WEIGHT,
    "KD.RELATION.ANGLE_WEIGHT": _WEIGHT,
    "KD.EMBEDDING.WEIGHT": _WEIGHT,
    "KD.SELF.WEIGHT": _WEIGHT,
    "KD.SELF.FORM": Choices(("described", "published")),
    "KD.SELF.TEACHER": Range(2, 4),
    "KD.SELF.LEARNERS": Range(1, 3, lengths=(1, 2, 3)),
    "KD.SELF.CLASSIFY_WEIGHT": _WEIGHT,
    "INPUT.SIZE_TRAIN": _SIZE,
    "INPUT.SIZE_TEST": _SIZE,
    "INPUT.INTERPOLATION": Choices(("bilinear", "bicubic")),
    "INPUT.PIXEL_MEAN": Range(0, 1, lengths=(3,)),
    "INPUT.PIXEL_STD": Range(0, 10, above=True, lengths=(3,)),
    "INPUT.FLIP_PROB": _PROBABILITY,
    "INPUT.PADDING": Range(0, 1024),
    "INPUT.RE_PROB": _PROBABILITY,
    "INPUT.RE_FILL": Choices(("mean", "published")),
    "INPUT.AUTOAUG_PROB": _PROBABILITY,
    "INPUT.AUTOAUG_DECAY": Range(0, 1e12),
    "INPUT.AFFINE_PROB": _PROBABILITY,
    "INPUT.AUGMIX_PROB": _PROBABILITY,
    "INPUT.PATCH_PROB": _PROBABILITY,
    "INPUT.JITTER_PROB": _PROBABILITY,
    "INPUT.JITTER": Range(0, 10, lengths=(4,)),
    "INPUT.NUM_FRAMES": Range(1, 1024),
    "INPUT.NUM_FRAMES_TEST": Range(0, 1024),
    "INPUT.FRAME_SAMPLING": Choices(("even", "chunk", "multiview", "multiview-cameras")),
    "DATASETS.ROOT": Text(path=True, empty=False),
    "DATASETS.NAMES": Text(items=True, empty=False),
    "DATASETS.TESTS": Text(items=True, empty=False),
    "DATALOADER.SAMPLER": Choices(
        ("identity", "identity-once", "identity-fastreid", "identity-cameras", "random")
    ),
    "DATALOADER.NUM_INSTANCES": Range(1, 1e6),
    "DATALOADER.NUM_WORKERS": Range(0, 1024),
    "DATALOADER.CACHE": Choices(("auto", "device", "ram", "none")),
    "DATALOADER.CACHE_GIB": Range(0, 1e6),
    "DATALOADER.CACHE_SHARE": _PROBABILITY,
    "DATALOADER.SKIP_BROKEN": _FLAG,
    "SOLVER.OPTIMIZER": Choices(("adam", "adamw", "sgd")),
    "SOLVER.FUSED": Choices(("auto", "torch", "apex", "none")),
    "SOLVER.BASE_LR": Range(0, 1000),
    "SOLVER.BASE_BATCH": Range(0, 1e6),
    "SOLVER.BIAS_LR_FACTOR": Range(0, 1e4),
    "SOLVER.HEAD_LR_FACTOR": Range(0, 1e4),
    "SOLVER.LAYER_DECAY": Range(0, 1, above=True),
    "SOLVER.WEIGHT_DECAY": Range(0, 100),
    "SOLVER.WEIGHT_DECAY_BIAS": Range(0, 100),
    "SOLVER.WEIGHT_DECAY_NORM": Range(0, 100),
    "SOLVER.WEIGHT_DECAY_EMBEDDING": Range(0, 100),
    "SOLVER.MOMENTUM": _DECAY,
    "SOLVER.NESTEROV": _FLAG,
    "SOLVER.MAX_EPOCHS": Range(1, 1e6),
    "SOLVER.IMS_PER_BATCH": Range(1, 1e6),
    "SOLVER.ACCUMULATION_STEPS": Range(1, 1e6),
    "SOLVER.SCHEDULE": Choices(("multistep", "cosine")),
    "SOLVER.SCHEDULE_BY": Choices(("epoch", "iteration")),
    "SOLVER.STEPS": Range(1, 1e6, lengths=(-1,)),
    "SOLVER.STEPS_AFTER_WARMUP": _FLAG,
    "SOLVER.GAMMA": Range(0, 10),
    "SOLVER.ETA_MIN_FACTOR": _PROBABILITY,
    "SOLVER.DELAY_EPOCHS": Range(0, 1e6),
    "SOLVER.WARMUP_EPOCHS": Range(0, 1e6),
    "SOLVER.WARMUP_FACTOR": _PROBABILITY,
    "SOLVER.WARMUP_METHOD": Choices(("linear", "constant", "exp")),
    "SOLVER.CLIP_NORM": Range(0, 1e9),
    "SOLVER.FREEZE": Text(items=True, empty=False),
    "SOLVER.FREEZE_ITERS": Range(0, 1e12),
    "SOLVER.EMA_DECAY": _DECAY,
    "SOLVER.MINING": Choices(("global", "local")),
    "SOLVER.PRECISE_BN_ITERS": Range(0, 1e6),
    "SOLVER.FP16": _FLAG,
    "SOLVER.AMP_DTYPE": Choices(("float16", "bfloat16")),
    "SOLVER.CPU_PRECISION": Choices(("auto", "float32", "bfloat16")),
    "SOLVER.STEP": Choices(("auto", "graph", "compile", "eager")),
    "SOLVER.LOG_PERIOD": _PERIOD,
    "SOLVER.EVAL_PERIOD": _PERIOD,
    "SOLVER.CHECKPOINT_PERIOD": _PERIOD,
    "TEST.IMS_PER_BATCH": Range(1, 1e6),
    "TEST.WEIGHT": Text(path=True),
    "TEST.NECK_FEAT": Choices(("before", "after")),
    "TEST.METRIC": Choices(("cosine", "euclidean")),
    "TEST.FLIP": _FLAG,
    "TEST.MAX_RANK": Range(1, 1e5),
    "TEST.VALIDATION": _DECAY,
    "TEST.PROTOCOL": Choices(
        (
            *("auto", "cross-camera", "all", "single-shot", "one-per-identity"),
            *("video-to-video", "image-to-video", "video-to-image", "image-to-image"),
        )
    ),
    "TEST.RE_RANKING": _FLAG,
    "TEST.RE_RANK.K1": Range(1, 1e4),
    "TEST.RE_RANK.K2": Range(1, 1e4),
    "TEST.RE_RANK.LAMBDA": _PROBABILITY,
    "TEST.AQE.K": Range(0, 1e4),
    "TEST.AQE.ALPHA": Range(0, 100),
    "TEST.AVERAGE_PRECISION": Choices(("mean", "trapezoid")),
    "TEST.FPRS": Range(0, 1, above=True, lengths=(-1,)),
    "TEST.MEMORY_GIB": Range(0, 1e6, above=True),
    "LOG.TO": Choices(
        ("tensorboard", "visdom", "wandb", "mlflow", "clearml", "neptune", "polyaxon"), items=True
    ),
    "LOG.PROJECT": Text(empty=False),
    "LOG.VISDOM_SERVER": _TEXT,
    "LOG.VISDOM_PORT": Range(1, 65535),
    "LOG.PROGRESS": _FLAG,
    "LOG.REPORT": _FLAG,
}


def describe_error(key: str, value: Any) -> str:
    """Return one sentence if the value is not allowed for the key; empty if it is."""
    allowed = CHECKS[key].error(value)
    return f"{key} is {show(value)}, allowed: {allowed}" if allowed else ""
