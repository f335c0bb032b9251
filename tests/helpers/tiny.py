"""A dataset, a network and a recipe so small that a complete run takes a second or two.

`python -m tests.helpers.tiny ARGUMENTS` is main.py with the network "tiny". `TINY_DELAY` (seconds)
delays every iteration, so that a test has time to send signals.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from ember_reid.modeling.backbones import BACKBONES
from PIL import Image
from torch import Tensor, nn

NUM_TRAIN_IDS, NUM_TEST_IDS = 8, 4


class TinyBackbone(nn.Module):
    """Maps images [N, 3, H, W] to two feature maps; has batch norm and dropout."""

    channels = (8, 16)
    stage_names = ("stem", "body")

    def __init__(self, *, batch_norm: bool = True, dropout: float = 0.1) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if batch_norm else nn.Identity
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), norm(8), nn.ReLU())
        self.body = nn.Sequential(
            nn.Dropout(dropout), nn.Conv2d(8, 16, 3, stride=2, padding=1), norm(16), nn.ReLU()
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.stem(images)
        return maps, self.body(maps)


# Registered on import, so that spawned processes know them too. "tiny_plain" has no batch norm and
# no dropout.
BACKBONES["tiny"] = lambda options: TinyBackbone()
BACKBONES["tiny_plain"] = lambda options: TinyBackbone(batch_norm=False, dropout=0.0)


def write_market(root: Path) -> Path:
    """Write a dataset in the layout of Market-1501, and return its folder.

    8 training and 4 test identities x 2 cameras x 2 images, with a distractor and a junk image. An
    identity is a color, a camera a brightness, and each image has noise, so retrieval can be
    learned.
    """
    rng = np.random.default_rng(0)
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (root / folder).mkdir(parents=True)
    for pid in range(1, NUM_TRAIN_IDS + NUM_TEST_IDS + 1):
        color = rng.integers(40, 200, 3)
        for camera in (1, 2):
            for shot in (1, 2):
                name = f"{pid:04d}_c{camera}s1_{shot:06d}_00.jpg"
                if pid <= NUM_TRAIN_IDS:
                    folder = "bounding_box_train"
                else:
                    folder = "query" if (camera, shot) == (1, 1) else "bounding_box_test"
                _write(root / folder / name, color * (0.7 if camera == 2 else 1.0), rng)
    _write(root / "bounding_box_test" / "0000_c2s1_000009_00.jpg", rng.integers(40, 200, 3), rng)
    _write(root / "bounding_box_test" / "-1_c2s1_000009_00.jpg", rng.integers(40, 200, 3), rng)
    return root


def _write(path: Path, color: np.ndarray, rng: np.random.Generator) -> None:
    pixels = color + rng.normal(0, 25, (32, 16, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)


def write_recipe(path: Path, data: Path) -> Path:
    """Write a recipe of two epochs of four iterations (P 4 x K 2), and return its path.

    It uses one thread: more would change the last bits, and they do not survive a fork.
    """
    path.write_text(f"""
MODEL: {{BACKBONE: {{NAME: tiny, WEIGHTS: none}}}}
DATASETS: {{NAMES: ["market1501:{data}"]}}
INPUT: {{SIZE_TRAIN: [32, 16], SIZE_TEST: [32, 16], PADDING: 2}}
DATALOADER: {{NUM_INSTANCES: 2, NUM_WORKERS: 0, CACHE: ram}}
SOLVER:
  MAX_EPOCHS: 2
  IMS_PER_BATCH: 8
  WARMUP_EPOCHS: 1
  STEPS: [1]
  EVAL_PERIOD: 1
  LOG_PERIOD: 2
  CHECKPOINT_MIN_SECONDS: 0
TEST: {{IMS_PER_BATCH: 4}}
LOG: {{TO: [], PROGRESS: false}}
DEVICE: cpu
NUM_THREADS: 1
""")
    return path


if __name__ == "__main__":
    from ember_reid.engine.handlers.batch import Seeder

    from ember_reid import main

    delay, seed = float(os.environ.get("TINY_DELAY", 0)), Seeder.__call__

    def seed_slowly(self, engine) -> None:
        time.sleep(delay)
        seed(self, engine)

    Seeder.__call__ = seed_slowly
    sys.exit(main.main(sys.argv[1:]))
