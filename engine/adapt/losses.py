"""Losses of the unlabeled rows of a batch, and the memories of clusters behind them.

A batch of each process starts with its labeled rows. B: rows, D: dimension.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from ember_reid.data.batch import Batch
from ember_reid.engine.adapt.clustering import Clusters
from ember_reid.engine.distributed import gather_rows
from ember_reid.layers.contrast import (
    cluster_centers,
    cluster_contrast_loss,
    hybrid_contrast_loss,
    inter_camera_loss,
    intra_camera_loss,
    update_each,
    update_hardest,
)
from ember_reid.modeling.output import ReidOutput
from ignite.engine import Engine
from torch import Tensor, nn

LossFunction = Callable[[ReidOutput, Batch], Tensor]


def select_rows(output: ReidOutput, batch: Batch, rows: slice) -> tuple[ReidOutput, Batch]:
    """Some rows of a batch and of its output; without maps and outputs of teachers."""
    return (
        ReidOutput(
            embedding=output.embedding[rows],
            logits=tuple(logits[rows] for logits in output.logits),
            features=tuple(features[rows] for features in output.features),
        ),
        Batch(batch.images[rows], batch.pids[rows], batch.camids[rows], batch.indices[rows]),
    )


class RowsLoss(nn.Module):
    """A loss of some rows only."""

    def __init__(self, loss: LossFunction, rows: slice) -> None:
        super().__init__()
        self.loss, self.rows = loss, rows

    def forward(self, output: ReidOutput, batch: Batch) -> Tensor:
        return self.loss(*select_rows(output, batch, self.rows))


class AdaptationLoss(ABC):
    """A loss with a memory that each clustering replaces or relabels.

    The memory is not a buffer of a module, because its size changes.
    """

    @abstractmethod
    def __call__(self, output: ReidOutput, batch: Batch) -> Tensor:
        """The loss of a whole batch. The memory is updated."""

    @abstractmethod
    def rebuild(self, clusters: Clusters) -> None:
        """Prepare for the labels of a new clustering."""

    def stored_features(self) -> Tensor | None:
        """Features [N, D] that are clustered instead of new embeddings; None for the latter."""
        return None

    def attach(self, engine: Engine) -> None:
        """Attach handlers to the trainer, before all others; by default, none."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The memory."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore the memory."""


class ClusterContrast(AdaptationLoss):
    """Cluster Contrast: one memory entry per cluster (Dai et al. 2021, arXiv 2103.11568).

    Labeled rows have the losses of the LOSS section instead. The authors' program updates the
    memory image by image; the paper describes the hardest image of a cluster.

    Args:
        rows: the unlabeled rows.
        first_label: the pid of cluster 0 in a batch.
        hardest: update with the hardest image of each cluster.
    """

    def __init__(
        self,
        rows: slice,
        *,
        first_label: int,
        temperature: float,
        momentum: float,
        hardest: bool,
    ) -> None:
        self.rows, self.first_label = rows, first_label
        self.temperature, self.momentum = temperature, momentum
        self.update = update_hardest if hardest else update_each
        self.memory = torch.empty(0)

    def __call__(self, output: ReidOutput, batch: Batch) -> Tensor:
        embeddings = F.normalize(output.embedding[self.rows].float())
        labels = batch.pids[self.rows] - self.first_label
        loss = cluster_contrast_loss(
            embeddings, labels, self.memory.clone(), temperature=self.temperature
        )
        self.update(
            self.memory, gather_rows(embeddings.detach()), gather_rows(labels), self.momentum
        )
        return loss

    def rebuild(self, clusters: Clusters) -> None:
        self.memory = clusters.centers()

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self.memory.clone()}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.memory = state["memory"].to(device)


class HybridContrast(AdaptationLoss):
    """SpCL: one entry per labeled identity and per unlabeled image (Ge et al., NeurIPS 2020).

    As in the authors' program, unlabeled images are clustered by their entries, not embedded again;
    and the loss is the sum of the means over labeled and over unlabeled rows.

    Args:
        num_rows: labeled rows of the batch of this process.
        first_index: the index of the first unlabeled record.
        source_centers: the centers [C, D] of the labeled identities, computed at the start of a
            training; without labeled images [0, D].
    """

    def __init__(
        self,
        num_rows: int,
        *,
        first_index: int,
        source_centers: Callable[[], Tensor],
        temperature: float,
        momentum: float,
    ) -> None:
        self.num_rows, self.first_index = num_rows, first_index
        self.source_centers = source_centers
        self.temperature, self.momentum = temperature, momentum
        self.num_classes = 0
        self.memory, self.labels = torch.empty(0), torch.empty(0, dtype=torch.int64)

    def __call__(self, output: ReidOutput, batch: Batch) -> Tensor:
        embeddings = F.normalize(output.embedding.float())
        entries = torch.cat(
            (
                batch.pids[: self.num_rows],
                batch.indices[self.num_rows :] - self.first_index + self.num_classes,
            )
        )
        memory = self.memory.clone()
        halves = (slice(None, self.num_rows), slice(self.num_rows, None))
        labeled, unlabeled = (
            hybrid_contrast_loss(
                embeddings[half], entries[half], memory, self.labels, temperature=self.temperature
            )
            for half in halves
        )
        update_each(
            self.memory, gather_rows(embeddings.detach()), gather_rows(entries), self.momentum
        )
        return labeled + unlabeled

    def rebuild(self, clusters: Clusters) -> None:
        if not len(self.memory):
            centers = self.source_centers()
            self.num_classes = len(centers)
            self.memory = torch.cat((centers, clusters.features))
        labels = clusters.label_tensor()
        outliers = labels < 0
        # Each outlier is a class of its own.
        labels[outliers] = clusters.num + torch.arange(int(outliers.sum()), device=labels.device)
        classes = torch.arange(self.num_classes, device=labels.device)
        self.labels = torch.cat((classes, labels + self.num_classes))

    def stored_features(self) -> Tensor | None:
        return self.memory[self.num_classes :].clone() if len(self.memory) else None

    def state_dict(self) -> dict[str, Any]:
        return {
            "memory": self.memory.clone(),
            "labels": self.labels.clone(),
            "num_classes": self.num_classes,
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.memory, self.labels = state["memory"].to(device), state["labels"].to(device)
        self.num_classes = int(state["num_classes"])


class CameraProxies(AdaptationLoss):
    """CAP: one memory entry per cluster and camera (Wang et al., AAAI 2021, arXiv 2012.10674).

    Images are compared with the proxies of their camera and, after some clusterings, with those of
    all cameras, with half the weight.

    Args:
        rows: the unlabeled rows.
        first_index: the index of the first unlabeled record.
        camids: int64 [N], of the unlabeled images.
        inter_start: clusterings before the comparison between cameras.
        num_negatives: see `inter_camera_loss`.
    """

    def __init__(
        self,
        rows: slice,
        *,
        first_index: int,
        camids: Tensor,
        temperature: float,
        momentum: float,
        inter_start: int,
        num_negatives: int,
    ) -> None:
        self.rows, self.first_index, self.camids = rows, first_index, camids
        self.temperature, self.momentum = temperature, momentum
        self.inter_start, self.num_negatives = inter_start, num_negatives
        self.rounds = 0
        # The proxies, their clusters and cameras, and the proxy of each image (-1: none).
        self.memory = torch.empty(0)
        self.labels = self.memory_camids = self.entries = torch.empty(0, dtype=torch.int64)

    def __call__(self, output: ReidOutput, batch: Batch) -> Tensor:
        embeddings = F.normalize(output.embedding[self.rows].float())
        entries = self.entries[batch.indices[self.rows] - self.first_index]
        camids, scaled = self.memory_camids[entries], embeddings / self.temperature
        memory = self.memory.clone()
        loss = intra_camera_loss(scaled, entries, camids, memory, self.memory_camids)
        if self.rounds > self.inter_start:
            loss = loss + 0.5 * inter_camera_loss(
                scaled,
                self.labels[entries],
                camids,
                memory,
                self.labels,
                num_negatives=self.num_negatives,
            )
        update_each(
            self.memory, gather_rows(embeddings.detach()), gather_rows(entries), self.momentum
        )
        return loss

    def rebuild(self, clusters: Clusters) -> None:
        labels = clusters.label_tensor()
        camids = self.camids.to(labels.device)
        known = labels >= 0
        pairs, entries = torch.unique(
            torch.stack((labels[known], camids[known])), dim=1, return_inverse=True
        )
        self.labels, self.memory_camids = pairs[0].contiguous(), pairs[1].contiguous()
        self.entries = torch.full_like(labels, -1)
        self.entries[known] = entries
        self.memory = cluster_centers(clusters.features, self.entries, pairs.shape[1])
        self.rounds += 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "memory": self.memory.clone(),
            "labels": self.labels.clone(),
            "memory_camids": self.memory_camids.clone(),
            "entries": self.entries.clone(),
            "rounds": self.rounds,
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.memory, self.labels = state["memory"].to(device), state["labels"].to(device)
        self.memory_camids = state["memory_camids"].to(device)
        self.entries, self.rounds = state["entries"].to(device), int(state["rounds"])
