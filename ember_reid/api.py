"""The Python API: train, test and use networks without the command line.

Data is a dataset's name, a CSV file, a folder, or a pandas DataFrame with the columns of the CSV.
"""

import argparse
import logging
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ember_reid import main
from ember_reid.config import load_config
from ember_reid.data.batch import EmbeddingBatch
from ember_reid.data.build import build_splits
from ember_reid.data.records import Record
from ember_reid.engine import load_model as load_embedder
from ember_reid.engine.build import read_test_config
from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.engine.scores import ScoreSettings, retrieval_scores
from ember_reid.evaluate import Rerank
from ember_reid.tools.export import command as export

logger = logging.getLogger("ember.api")

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes:
        folder: its OUTPUT_DIR.
        results: the content of `results.json`: scores by dataset, fractions in [0, 1].
    """

    folder: Path
    results: Results

    @property
    def best(self) -> Path:
        """The checkpoint with the highest mAP, or the last one if none was evaluated in between."""
        best = self.folder / "checkpoints" / "best.pt"
        return best if best.is_file() else self.last

    @property
    def last(self) -> Path:
        """The checkpoint of the last epoch."""
        return self.folder / "checkpoints" / "last.pt"


class Model:
    """A trained network, ready to use.

    Attributes:
        metadata: input size, normalization, embedding dimension, fingerprint and threshold.
    """

    def __init__(self, path: Path, embedder: Embedder) -> None:
        self.path = path
        self._embedder = embedder
        self.metadata = embedder.metadata

    def __repr__(self) -> str:
        return f"Model({str(self.path)!r}, {self.metadata.embedding_dim} dimensions)"

    def embed(self, images: Any, *, batch_size: int = 64) -> Tensor:
        """Embeddings float32 [B, D] of length 1; see `Embedder.embed` for the kinds of images."""
        return self._embedder.embed(images, batch_size=batch_size)

    def evaluate(self, data: Any, *, rerank: Rerank | None = None) -> Results:
        """Score this network on the query and gallery images of `data` by cosine distance.

        Returns:
            Scores by dataset, as in `results.json`.
        """
        with tempfile.TemporaryDirectory() as folder:
            words = ["DEVICE=cpu", *_words(data, {}, Path(folder))]
            tests = build_splits(load_config(None, words), train=False).tests
            return {
                name: retrieval_scores(
                    self._embed_records([*splits.query, *splits.gallery]),
                    len(splits.query),
                    ScoreSettings(metric="cosine", protocol=splits.protocol, rerank=rerank),
                )
                for name, splits in tests.items()
            }

    def _embed_records(self, records: Iterable[Record]) -> EmbeddingBatch:
        """Embed images, and tracklets as the mean over their frames."""
        records = list(records)
        # [N, D]
        embeddings = torch.stack([self.embed(list(record.paths)).mean(dim=0) for record in records])
        return EmbeddingBatch(
            embeddings,
            torch.tensor([record.pid for record in records]),
            torch.tensor([record.camid for record in records]),
            torch.arange(len(records)),
        )

    def export(
        self, out: str | Path, *, to: str = "onnx", images: str | Path | None = None
    ) -> Path:
        """Write the network for other programs, after comparing it with this one.

        Args:
            out: the file to write.
            to: onnx, torchscript or exported-program.
            images: compare on these images; by default on the test sets of the checkpoint's recipe.
        """
        words = [str(self.path), "--to", to, "--out", str(out)]
        words += [] if images is None else ["--images", str(images)]
        parser = argparse.ArgumentParser()
        export.add_options(parser)
        for line in export.export(parser.parse_args(words)):
            logger.info("%s", line)
        return Path(out)


def train(recipe: str | Path, *, data: Any = None, resume: bool = False, **keys: Any) -> Run:
    """Train and evaluate, as `ember-reid train RECIPE` does.

    Args:
        recipe: a file, or the name of a shipped recipe (`market1501/bot_R50`).
        data: what to train and test on; None for the recipe's own datasets.
        resume: continue from `last.pt` in the output folder.
        keys: short names (`epochs=20`, `out="runs/cows"`) or, through a dict, any configuration
            key: `train("quickstart", **{"SOLVER.BASE_LR": 1e-3})`.

    Raises:
        ValueError, OSError, ModuleNotFoundError: an error that the user can fix, in one line.
    """
    plain = load_config(recipe, _words(None, keys, None))
    cfg = load_config(recipe, _words(data, keys, Path(plain.OUTPUT_DIR)))
    results = main.train(cfg, resume=resume)
    return Run(Path(cfg.OUTPUT_DIR), results)


def test(checkpoint: str | Path, *, data: Any = None, **keys: Any) -> Results:
    """Score a checkpoint, as `ember-reid test` does; returns the scores by dataset.

    Args:
        checkpoint: a checkpoint of ember-reid, which contains its recipe.
        data: what to test on; None for the test sets of its recipe.
        keys: as for `train`.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = ["TEST.WEIGHT", str(checkpoint), *_words(data, keys, Path(folder))]
        return main.test(read_test_config(None, words))


def load_model(path: str | Path, **options: Any) -> Model:
    """Load a checkpoint or an exported network; see `ember_reid.engine.load_model`."""
    return Model(Path(path), load_embedder(path, **options))


def _words(data: Any, keys: dict[str, Any], folder: Path | None) -> list[str]:
    """Overrides as typed on the command line; a DataFrame becomes `folder`/data.csv."""
    words = [f"{name}={value}" for name, value in keys.items()]
    if data is None or folder is None:
        return words
    if hasattr(data, "to_csv"):
        data = _write_csv(data, folder / "data.csv")
    return [f"data={data}", *words]


def _write_csv(frame: Any, path: Path) -> Path:
    """Write a DataFrame with absolute image paths, since the CSV is not where the caller is."""
    frame = frame.copy()
    if "path" in frame:
        frame["path"] = [str(Path(image).expanduser().absolute()) for image in frame["path"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return path
