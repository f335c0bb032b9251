"""Loss terms of distillation: (ReidOutput of the student, Batch with the teachers' outputs) -> scalar.

Each is the mean over the teachers. Modules have parameters, which train with the student and stay behind with the
criterion.
"""

from collections.abc import Callable, Sequence

import torch
from ember_reid.engine.distill.class_mapping import CommonClasses
from ember_reid.engine.distill.stages import StageTaps
from ember_reid.engine.distill.teachers import Teacher
from ember_reid.engine.distributed import gather_rows
from ember_reid.layers import cosine_matching, margin_relu, partial_distance, smoothed_cross_entropy
from ember_reid.layers.precision import autocast_like
from ember_reid.modeling.adapters import AttentionAdapter, create_connector, create_projection
from torch import Tensor, nn
from torch.nn import functional as F


def _mean(values: Sequence[Tensor]) -> Tensor:
    return sum(values) / len(values)


def logit_term(
    divergence: Callable[[Tensor, Tensor], Tensor], common: Sequence[CommonClasses]
) -> Callable[..., Tensor]:
    """`divergence(student_logits, teacher_logits)` over the common identities, the mean over the student's heads.

    Heads are compared one by one where the teacher has as many, else each with the mean of the teacher's logits.
    """

    def term(output, batch) -> Tensor:
        values = []
        for teacher, classes in zip(batch.teachers, common, strict=True):
            theirs = teacher.logits
            if len(theirs) != len(output.logits):
                theirs = (_mean(theirs),) * len(output.logits)
            for own, other in zip(output.logits, theirs, strict=True):
                values.append(divergence(*classes.select(own.float(), other.float())))
        return _mean(values)

    return term


def feature_pair_term(
    loss: Callable[[Tensor, Tensor], Tensor], *, share: Callable[[Tensor], Tensor] = gather_rows
) -> Callable[..., Tensor]:
    """A loss over pairs of metric features (VKD), of the first head of each; `share` says whose rows make pairs."""

    def term(output, batch) -> Tensor:
        own = share(output.features[0].float())
        return _mean([loss(own, share(teacher.features[0].float())) for teacher in batch.teachers])

    return term


def embedding_pair_term(
    loss: Callable[[Tensor, Tensor], Tensor], *, share: Callable[[Tensor], Tensor] = gather_rows
) -> Callable[..., Tensor]:
    """A loss over pairs of embeddings, what retrieval compares; `share` says whose rows make pairs."""

    def term(output, batch) -> Tensor:
        own = share(output.embedding.float())
        return _mean([loss(own, share(teacher.embedding.float())) for teacher in batch.teachers])

    return term


class EmbeddingTerm(nn.Module):
    """1 - cosine between the student's embedding, through a projection where the widths differ, and each teacher's."""

    def __init__(self, student_dim: int, teacher_dims: Sequence[int]):
        super().__init__()
        self.projections = nn.ModuleList(
            create_projection(student_dim, dim) for dim in teacher_dims
        )

    def forward(self, output, batch) -> Tensor:
        own = output.embedding.float()
        pairs = zip(self.projections, batch.teachers, strict=True)
        return _mean(
            [cosine_matching(projection(own), teacher.embedding) for projection, teacher in pairs]
        )


class FeatureTerm(nn.Module):
    """Partial distances of stage maps, the student's through connectors, summed and divided by the batch (Heo et al. 2019).

    Args:
        taps: of the student; None where `ReidOutput.maps` are compared, as the student is no ResNet.
        channels: of the student's stages; where they are fewer than the teacher's, the deepest are compared.
        teachers: those with maps, in the order of `batch.teachers`.
        stage_weights: 1/8, 1/4, 1/2, 1 as published.
        rectified: stages whose maps pass a ReLU on both sides first. FastReID's program does this to stages 1 to 3, as
            an in-place ReLU of the next stage overwrites what it kept.
        every: the maps of every so-many-th image are compared, or frame where samples are clips, and count for the others.
    """

    def __init__(
        self,
        taps: StageTaps | None,
        channels: Sequence[int],
        teachers: Sequence[Teacher],
        *,
        stage_weights: Sequence[float],
        rectified: Sequence[int] = (),
        every: int = 1,
    ):
        super().__init__()
        self.taps, self.teachers, self.every = taps, list(teachers), every
        self.skipped = len(stage_weights) - len(channels)
        self.stage_weights, self.rectified = tuple(stage_weights), frozenset(rectified)
        self.connectors = nn.ModuleList(
            nn.ModuleList(
                create_connector(own, other)
                for own, other in zip(
                    channels, teacher.model.backbone.channels[self.skipped :], strict=True
                )
            )
            for teacher in teachers
        )

    def forward(self, output, batch) -> Tensor:
        own = output.maps
        if self.taps is not None:
            own = self.taps.maps
            self.taps.clear()
        values = [
            self._distance(own, answer.maps, teacher.margins(), connectors)
            for answer, teacher, connectors in zip(
                batch.teachers, self.teachers, self.connectors, strict=True
            )
        ]
        images = len(own[0])
        return _mean(values) * (images / len(range(0, images, self.every))) / len(batch.pids)

    def _distance(self, own, theirs, margins, connectors) -> Tensor:
        total = 0.0
        for stage, weight in enumerate(self.stage_weights):
            if weight == 0 or stage < self.skipped:
                continue
            student = _take_every(own[stage - self.skipped], self.every)
            target = _take_every(theirs[stage].flatten(0, -4), self.every)
            if stage in self.rectified:
                student, target = student.relu(), target.relu()
            with autocast_like(student):
                student = connectors[stage - self.skipped](student)
            if student.shape[2:] != target.shape[2:]:
                target = F.interpolate(
                    target.float(),
                    size=student.shape[2:],
                    mode="bilinear",
                    align_corners=False,
                    antialias=True,
                )
            total = total + weight * partial_distance(student, margin_relu(target, margins[stage]))
        return total


def _take_every(maps: Tensor, step: int) -> Tensor:
    """Every step-th of maps [N, C, H, W]; channels are last meanwhile, so that they are in the gradient, too."""
    return maps if step == 1 else maps.permute(0, 2, 3, 1)[::step].permute(0, 3, 1, 2)


class SelfTerm(nn.Module):
    """Shallow stages learn from a deeper one of the same network, through attention adapters.

    Args:
        channels: of the stages.
        teacher, learners: 0-based stages.
        published: the formula of the published program: one Euclidean norm over the whole batch, for the first learner
            only, and no training of the teacher's adapter. Otherwise the Euclidean distance of each image, the mean over
            images, summed over all learners.
        num_classes: for classifiers on the adapters of teacher and learners.
        weight, classify_weight: of the two parts.

    The stage that teaches gets no gradient from its pupils; its adapter learns from its classifier alone.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        teacher: int,
        learners: Sequence[int],
        published: bool,
        num_classes: int,
        weight: float,
        classify_weight: float = 0.0,
    ):
        super().__init__()
        self.teacher, self.published = teacher, published
        self.learners = tuple(learners[:1] if published else learners)
        self.weight, self.classify_weight = weight, classify_weight
        stages = (teacher, *self.learners)
        self.adapters = nn.ModuleDict(
            {str(stage): AttentionAdapter(tuple(channels), stage) for stage in stages}
        )
        self.classifiers = nn.ModuleDict()
        if classify_weight > 0:
            dim = self.adapters[str(teacher)].dim
            self.classifiers.update({str(stage): nn.Linear(dim, num_classes) for stage in stages})
        else:
            self.adapters[str(teacher)].requires_grad_(False)

    def forward(self, output, batch) -> Tensor:
        vectors = {
            name: adapter(output.maps[int(name)].float()) for name, adapter in self.adapters.items()
        }
        target = vectors[str(self.teacher)].detach()
        distances = []
        for stage in self.learners:
            difference = vectors[str(stage)] - target
            distances.append(difference.norm() if self.published else difference.norm(dim=1).mean())
        loss = self.weight * sum(distances)
        if self.classifiers:
            loss = loss + self.classify_weight * self._classify(vectors, batch)
        return loss

    def _classify(self, vectors: dict[str, Tensor], batch) -> Tensor:
        """Cross-entropy, the mean over adapters; frames of a clip have their clip's identity."""
        values = []
        for name, classifier in self.classifiers.items():
            frames = len(vectors[name]) // len(batch.pids)
            pids = batch.pids.repeat_interleave(frames)
            values.append(smoothed_cross_entropy(classifier(vectors[name]), pids, epsilon=0.1))
        return torch.stack(values).mean()
