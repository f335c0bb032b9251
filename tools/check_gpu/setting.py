"""The network, the images and the runs that the parts of a check use."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ember_reid.config import Config, load_config
from ember_reid.data.loader_processes import loader_processes
from ember_reid.engine.build import build_device
from ember_reid.engine.handlers.build import build_control, build_handlers
from ember_reid.engine.plugins import register_backbone
from ember_reid.engine.run.build import TrainingRun, build_training_run, seed_everything
from ignite.engine import Events
from PIL import Image
from torch import Tensor, nn

NETWORK, PLAIN_NETWORK = "check_gpu_tiny", "check_gpu_plain"
PLUGIN = "ember_reid.tools.check_gpu.setting"


@dataclass(frozen=True)
class Setting:
    """Where a part works, and how large.

    Attributes:
        folder: for files of this part.
        device: cuda, or cpu in a rehearsal.
        rehearse: tiny sizes, without targets of speed.
        steps: values of SOLVER.STEP that main.py accepts here; the last one is the fastest.
    """

    folder: Path
    device: str
    rehearse: bool

    @property
    def steps(self) -> tuple[str, ...]:
        return ("eager",) if self.rehearse else ("eager", "graph")


class TinyNetwork(nn.Module):
    """Images [N, 3, H, W] to two feature maps; has batch norms and dropout."""

    channels = (8, 16)

    def __init__(self, *, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.body = nn.Sequential(
            nn.Dropout(dropout),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps of both stages."""
        maps = self.stem(images)
        return maps, self.body(maps)


register_backbone(NETWORK, lambda options: TinyNetwork(dropout=0.1))
# Without random numbers, so that a CPU and a GPU compute the same.
register_backbone(PLAIN_NETWORK, lambda options: TinyNetwork(dropout=0.0))


def write_images(
    root: Path, *, num_ids: int, images_per_id: int, size: tuple[int, int] = (32, 16)
) -> Path:
    """Write noise in the layout of Market-1501: an identity is a color, a camera a brightness.

    Args:
        root: the folder, which is returned.
        num_ids: training identities; there are as many test identities, at most 32.
        images_per_id: of a training identity, over two cameras.
        size: (H, W) of the files.
    """
    rng = np.random.default_rng(0)
    num_test = min(num_ids, 32)
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for pid in range(1, num_ids + num_test + 1):
        color = rng.integers(40, 200, 3)
        count = images_per_id if pid <= num_ids else 4
        for number in range(count):
            camera = 1 + number % 2
            pixels = color * (0.7 if camera == 2 else 1.0) + rng.normal(0, 25, (*size, 3))
            folder = "bounding_box_train"
            if pid > num_ids:
                folder = "query" if number == 0 else "bounding_box_test"
            name = f"{pid:04d}_c{camera}s1_{number:06d}_00.jpg"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / folder / name)
    return root


def tiny_words(setting: Setting, images: Path, name: str) -> list[str]:
    """The configuration of a small training: two epochs of four iterations."""
    values: dict[str, object] = {
        "IMPORTS": f"('{PLUGIN}',)",
        "MODEL.BACKBONE.NAME": NETWORK,
        "MODEL.BACKBONE.WEIGHTS": "none",
        "DATASETS.NAMES": f"('quickstart:{images}',)",
        "INPUT.SIZE_TRAIN": "(32,16)",
        "INPUT.SIZE_TEST": "(32,16)",
        "INPUT.PADDING": 2,
        "DATALOADER.NUM_INSTANCES": 2,
        "DATALOADER.NUM_WORKERS": 0,
        "DATALOADER.CACHE": "device",
        "SOLVER.MAX_EPOCHS": 2,
        "SOLVER.IMS_PER_BATCH": 8,
        "SOLVER.WARMUP_EPOCHS": 1,
        "SOLVER.STEPS": "(1,)",
        "SOLVER.EVAL_PERIOD": 2,
        "SOLVER.LOG_PERIOD": 2,
        "SOLVER.STEP": "eager",
        "TEST.IMS_PER_BATCH": 6,
        "LOG.TO": "()",
        "LOG.PROGRESS": False,
        "DEVICE": setting.device,
        "NUM_PROCESSES": 1,
        "NUM_THREADS": 1 if setting.rehearse else 0,
        "OUTPUT_DIR": setting.folder / name,
    }
    return [str(word) for pair in values.items() for word in pair]


def tiny_images(setting: Setting) -> Path:
    """A training set of 8 identities with 4 images each."""
    return write_images(setting.folder / "market1501", num_ids=8, images_per_id=4)


@contextmanager
def training(words: Sequence[str]) -> Iterator[TrainingRun]:
    """A training run as main.py builds it, with all handlers and without evaluation.

    On a CPU, SOLVER.STEP graph is rehearsed: functions are called instead of replayed.
    """
    cfg: Config = load_config(None, words)
    torch.manual_seed(cfg.SEED)
    random.seed(cfg.SEED)
    seed_everything(cfg)
    is_graph = cfg.SOLVER.STEP == "graph"
    run = build_training_run(cfg, build_device(cfg), evaluate=False, rehearse=is_graph)
    control = build_control(run)
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    for handler in build_handlers(run, control):
        handler.attach(run.trainer)
    with control.checkpoints.writer, run.writers.opened(), loader_processes(run.train_loader):
        yield run


def run_iterations(
    run: TrainingRun, count: int, *, at: dict[int, Callable[[], object]] | None = None
) -> None:
    """Train some iterations.

    Args:
        at: called after the iteration of that number.
    """
    trainer, length = run.trainer, len(run.train_loader)
    for iteration, action in (at or {}).items():
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=iteration), action)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=count), lambda: trainer.terminate(skip_completed=True)
    )
    trainer.run(run.train_loader, max_epochs=-(-count // length), epoch_length=length)
