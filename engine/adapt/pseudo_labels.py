"""The handler that clusters the unlabeled images and replaces their labels."""

import csv
import io
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ember_reid.data.adaptation.sampler import AdaptationSampler
from ember_reid.data.dataset import ReidDataset
from ember_reid.data.records import NO_PID, Record
from ember_reid.engine.adapt.clustering import (
    ClusteringOptions,
    Clusters,
    cluster_features,
    count_changes,
    flip_consistency,
)
from ember_reid.engine.adapt.embedding import ImageSet
from ember_reid.engine.adapt.losses import AdaptationLoss
from ember_reid.engine.files import replace_text
from ember_reid.engine.handlers.writers import MetricWriter
from ember_reid.evaluate import OUTLIER
from ignite.engine import Engine, Events
from torch import Tensor, nn

logger = logging.getLogger("ember.adapt")

CLUSTER_FILE = "clusters.csv"


@dataclass(frozen=True)
class Target:
    """The unlabeled images of a run.

    Attributes:
        records: all training records; the unlabeled ones are the last.
        tracks: int64 [N], see `evaluate.cluster`.
        images: the unlabeled images.
        mirrored: mirror images of those in `sample`.
        sample: int64, some of the unlabeled images.
        dataset, sampler: of the training; they have the current labels.
        first_label: the pid of cluster 0, larger than those of labeled images.
    """

    records: Sequence[Record]
    tracks: np.ndarray
    images: ImageSet
    mirrored: ImageSet
    sample: Tensor
    dataset: ReidDataset
    sampler: AdaptationSampler
    first_label: int

    @property
    def first(self) -> int:
        """The index of the first unlabeled record."""
        return len(self.records) - len(self.tracks)

    @property
    def camids(self) -> Tensor:
        """The cameras of the unlabeled images, int64 [N]."""
        return torch.tensor([record.camid for record in self.records[self.first :]])

    def relabel(self, labels: np.ndarray) -> None:
        """Replace the labels of the unlabeled images everywhere."""
        pids = np.array([record.pid for record in self.records], np.int64)
        pids[self.first :] = np.where(labels == OUTLIER, NO_PID, labels + self.first_label)
        self.sampler.set_pids(pids)
        self.dataset.set_pids(torch.from_numpy(pids))


class PseudoLabels:
    """Trainer, EPOCH_STARTED: every `period` epochs, clusters the unlabeled images.

    The clusters become the labels of the images until the next clustering: in the dataset, in the
    sampler and in the memory of the loss. One line is logged, and OUTPUT_DIR/clusters.csv contains
    the cluster of each image. The labels, the memory and the counts are part of a checkpoint, so a
    resumed run continues with the same bits.

    Args:
        target: the unlabeled images.
        loss: its memory is rebuilt.
        trained: the network that is trained.
        norms: its batch norms of labeled images, which are saved here; None: there are none.
        period: epochs between two clusterings.
        folder: OUTPUT_DIR.
    """

    def __init__(
        self,
        target: Target,
        options: ClusteringOptions,
        loss: AdaptationLoss,
        *,
        trained: nn.Module,
        norms: nn.Module | None = None,
        period: int,
        folder: Path,
        writer: MetricWriter,
    ) -> None:
        self.target, self.options, self.loss = target, options, loss
        self.trained, self.norms, self.period = trained, norms, period
        self.folder, self.writer = folder, writer
        num = len(target.tracks)
        self.labels = np.full(num, OUTLIER)
        # How often the label of each image has changed, and the number of clusterings.
        self.changes, self.rounds = np.zeros(num, np.int64), 0
        # The last epoch that started with a clustering.
        self.epoch = 0
        self.limit: float | None = None
        self._measured: tuple[int, Clusters, float] | None = None

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)
        self.loss.attach(engine)

    def __call__(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        # A resumed epoch continues with the labels of the checkpoint.
        if (epoch - 1) % self.period or epoch == self.epoch:
            return
        start = time.perf_counter()
        clusters, consistency = self.measure(engine.state.iteration)
        self._measured = None
        changed = count_changes(self.labels, clusters.labels)
        self.loss.rebuild(clusters)
        self.limit = clusters.limit
        # Embedding uses the evaluation mode.
        self.trained.train()
        self.target.relabel(clusters.labels)
        self.labels = clusters.labels
        if self.rounds:
            self.changes += changed
        self.epoch, self.rounds = epoch, self.rounds + 1
        self._report(engine, clusters, consistency, changed, time.perf_counter() - start)

    def measure(self, iteration: int) -> tuple[Clusters, float]:
        """The clusters for the current weights, and their consistency under mirroring.

        Calls with the same iteration compute them once.
        """
        if self._measured is None or self._measured[0] != iteration:
            features = self.loss.stored_features()
            if features is None:
                features = self.target.images.embed()
            clusters = cluster_features(
                features, self.target.tracks, self.target.camids, self.options, self.limit
            )
            items = self.target.sample.to(features.device)
            consistency = flip_consistency(clusters, items, self.target.mirrored.embed())
            self._measured = (iteration, clusters, consistency)
        return self._measured[1:]

    def quality(self, name: str, iteration: int) -> float:
        """The criterion "silhouette" or "consistency" for the current weights."""
        clusters, consistency = self.measure(iteration)
        return consistency if name == "consistency" else clusters.silhouette

    def _report(
        self,
        engine: Engine,
        clusters: Clusters,
        consistency: float,
        changed: np.ndarray,
        seconds: float,
    ) -> None:
        """Log the clustering and write the assignment."""
        if idist.get_rank() > 0:
            return
        settings = self.options.settings
        logger.info(
            "Epoch[%d] %d clusters of %d images, %d outliers, %d labels changed; %s with radius "
            "%g; silhouette %.3f, consistency %.1f%%; %.1f s",
            engine.state.epoch,
            clusters.num,
            len(clusters.labels) - clusters.num_outliers,
            clusters.num_outliers,
            int(changed.sum()),
            settings.algorithm,
            settings.radius,
            clusters.silhouette,
            100 * consistency,
            seconds,
        )
        values = {
            "clusters": clusters.num,
            "outliers": clusters.num_outliers,
            "changed": int(changed.sum()),
            "radius": settings.radius,
            "silhouette": clusters.silhouette,
            "consistency": consistency,
        }
        self.writer.write("clusters", engine.state.epoch, engine.state.iteration, values)
        self._write_assignment()

    def _write_assignment(self) -> None:
        """Write path, camera, track, cluster (-1: none) and number of changes of each image."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("path", "camid", "track", "cluster", "changes"))
        records = self.target.records[self.target.first :]
        columns = (records, self.target.tracks, self.labels, self.changes)
        for record, track, label, changes in zip(*columns, strict=True):
            rows.writerow((record.paths[0], record.camid, track, label, changes))
        replace_text(self.folder / CLUSTER_FILE, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        return {
            "labels": torch.from_numpy(self.labels.copy()),
            "changes": torch.from_numpy(self.changes.copy()),
            "rounds": self.rounds,
            "epoch": self.epoch,
            "limit": self.limit,
            "loss": self.loss.state_dict(),
            "norms": {} if self.norms is None else self.norms.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if len(state["labels"]) != len(self.labels):
            raise ValueError(
                f"{len(state['labels'])} unlabeled images, this run has {len(self.labels)}"
            )
        self.rounds, self.epoch = int(state["rounds"]), int(state["epoch"])
        self.limit = state["limit"]
        self.changes = state["changes"].numpy().copy()
        device = next(self.trained.parameters()).device
        self.loss.load_state_dict(state["loss"], device)
        if self.norms is not None:
            self.norms.load_state_dict(state["norms"])
        if self.rounds:
            self.labels = state["labels"].numpy().copy()
            self.target.relabel(self.labels)
