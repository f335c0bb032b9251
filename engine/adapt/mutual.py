"""Mutual Mean-Teaching: two students, each of which is taught by the average of the other.

B: rows, D: dimension, C: clusters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from ember_reid.data.batch import Batch
from ember_reid.engine.adapt.clustering import Clusters
from ember_reid.engine.adapt.losses import AdaptationLoss
from ember_reid.engine.events import current_batch
from ember_reid.engine.handlers.batch import Augment
from ember_reid.engine.handlers.ema import EMA
from ember_reid.layers import smoothed_cross_entropy
from ember_reid.layers.mutual import soft_cross_entropy, soft_triplet_loss
from ember_reid.modeling.output import ReidOutput
from ignite.engine import Engine, Events
from torch import Tensor, nn

# images [B, 3, H, W] -> ReidOutput
Forward = Callable[[Tensor], ReidOutput]


@dataclass(frozen=True)
class MutualOptions:
    """Settings of Mutual Mean-Teaching.

    Attributes:
        epsilon: label smoothing of the hard cross-entropy.
        soft_ce, soft_triplet: weights of the soft losses; the hard ones have one minus these.
    """

    epsilon: float = 0.1
    soft_ce: float = 0.5
    soft_triplet: float = 0.8


class ClusterClassifier(nn.Module):
    """A linear classifier whose first rows are those of the current clusters."""

    def __init__(self, max_clusters: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(max_clusters, dim))

    def forward(self, embeddings: Tensor, num: int) -> Tensor:
        """[B, D] -> logits [B, C]."""
        return F.linear(embeddings, self.weight[:num])


class MutualMeanTeaching(AdaptationLoss):
    """MMT with DBSCAN (Ge et al., ICLR 2020, arXiv 2001.01526), as in its program.

    Both students see the same images with different augmentation. A clustering sets the rows of
    their classifiers, and of the averages of these, to the cluster centers, and the optimizer
    starts again. Averages use the statistics of the batch in training. Unlike there, the decay of
    the averages has no ramp, and the radius is a setting, not a quantile of the distances.

    Args:
        rows: the unlabeled rows.
        first_label: the pid of cluster 0 in a batch.
        second: the network of the second student.
        dim: D.
        max_clusters: rows of the classifiers.
        decay: of the averages.
        augment: of the images of the second student.
    """

    def __init__(
        self,
        rows: slice,
        options: MutualOptions,
        *,
        first_label: int,
        second: nn.Module,
        dim: int,
        max_clusters: int,
        decay: float,
        augment: Augment,
    ) -> None:
        self.rows, self.options, self.first_label = rows, options, first_label
        heads = nn.ModuleList(ClusterClassifier(max_clusters, dim) for _ in range(2))
        device = next(second.parameters()).device
        self.trained = nn.ModuleDict({"network": second, "heads": heads}).to(device)
        self.average = EMA(self.trained, decay)
        self.augment, self.num = augment, 0
        self.images: Tensor | None = None
        # Set by `connect`, when the average of the first student exists.
        self.optimizer: torch.optim.Optimizer | None = None
        self.first_average: nn.Module | None = None
        self.embed: Callable[[], Tensor] | None = None

    def connect(
        self,
        *,
        optimizer: torch.optim.Optimizer,
        first_average: nn.Module,
        embed: Callable[[], Tensor],
    ) -> None:
        """Set what is created after the losses.

        Args:
            optimizer: trains both students; its state is dropped at each clustering.
            first_average: of the first student.
            embed: features [N, D] that are clustered, from both averages.
        """
        self.optimizer, self.first_average, self.embed = optimizer, first_average, embed

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self._augment)
        self.average.attach(engine)

    def _augment(self, engine: Engine) -> None:
        """The images of the second student; called before those of the first are augmented."""
        iteration, images = engine.state.iteration, current_batch(engine).images
        augment = self.augment
        self.images = augment.augmentation(
            images,
            augment.create_generator(iteration),
            step=iteration - 1,
            rank=augment.rank,
            world_size=augment.world_size,
        )[self.rows]

    def __call__(self, output: ReidOutput, batch: Batch) -> Tensor:
        images = (batch.images[self.rows], cast(Tensor, self.images))
        labels = batch.pids[self.rows] - self.first_label
        heads = cast(nn.ModuleList, self.trained["heads"])
        average_heads = cast(nn.ModuleList, cast(nn.ModuleDict, self.average.model)["heads"])
        first = ReidOutput(output.embedding[self.rows], (), (output.features[0][self.rows],))
        students = (first, self.trained["network"](images[1]))
        averages = (
            cast(nn.Module, self.first_average),
            cast(nn.ModuleDict, self.average.model)["network"],
        )
        with torch.no_grad():
            teachers = [
                network.train()(view) for network, view in zip(averages, images, strict=True)
            ]
        total = output.embedding.new_zeros(())
        for own, other in ((0, 1), (1, 0)):
            logits = heads[own](students[own].embedding.float(), self.num)
            features = students[own].features[0].float()
            with torch.no_grad():
                soft = average_heads[other](teachers[other].embedding.float(), self.num)
            options, reference = self.options, teachers[other].features[0].float()
            hard_ce = smoothed_cross_entropy(logits, labels, epsilon=options.epsilon)
            total = total + (1 - options.soft_ce) * hard_ce
            total = total + options.soft_ce * soft_cross_entropy(logits, soft)
            total = total + (1 - options.soft_triplet) * soft_triplet_loss(features, labels)
            total = total + options.soft_triplet * soft_triplet_loss(features, labels, reference)
        return total

    @torch.no_grad()
    def rebuild(self, clusters: Clusters) -> None:
        self.num, centers = clusters.num, clusters.centers()
        for module in (self.trained, cast(nn.ModuleDict, self.average.model)):
            for head in cast(nn.ModuleList, module["heads"]):
                cast(ClusterClassifier, head).weight[: self.num] = centers
        if self.optimizer is not None:
            self.optimizer.state.clear()
        self.trained.train()

    def stored_features(self) -> Tensor | None:
        return None if self.embed is None else self.embed()

    def state_dict(self) -> dict[str, Any]:
        return {
            "trained": self.trained.state_dict(),
            "average": self.average.model.state_dict(),
            "num": self.num,
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.trained.load_state_dict(state["trained"])
        self.average.model.load_state_dict(state["average"])
        self.num = int(state["num"])
