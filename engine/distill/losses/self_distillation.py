"""Self-distillation: the shallow stages of a network learn from a deeper one."""

from collections.abc import Mapping, Sequence

import torch
from ember_reid.data.batch import Batch
from ember_reid.engine.distill.losses.outputs import add
from ember_reid.layers import smoothed_cross_entropy
from ember_reid.modeling import ReidOutput
from ember_reid.modeling.adapters import AttentionAdapter
from torch import Tensor, nn


class SelfDistillationLoss(nn.Module):
    """Euclidean distances between the outputs of stages, after attention adapters.

    The teaching stage and its adapter receive no gradient from the distances; the adapter is
    trained only by its classifier.

    Args:
        channels: of the stages.
        teacher_stage, student_stages: counted from 0.
        published: use the formula of the published program: a single Euclidean norm over the whole
            batch, for the first student stage only. Otherwise, the Euclidean distance of each
            image, averaged over images and summed over student stages.
        num_classes: of the classifiers on the adapters.
        weight, classify_weight: of the distances, and of the mean cross-entropy of the classifiers.
            Without the latter, the teaching adapter is not trained.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        teacher_stage: int,
        student_stages: Sequence[int],
        published: bool,
        num_classes: int,
        weight: float,
        classify_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.teacher_stage, self.published = teacher_stage, published
        self.student_stages = tuple(student_stages[:1] if published else student_stages)
        self.weight, self.classify_weight = weight, classify_weight
        stages = (teacher_stage, *self.student_stages)
        adapters = {str(stage): AttentionAdapter(tuple(channels), stage) for stage in stages}
        self.adapters = nn.ModuleDict(adapters)
        self.classifiers = nn.ModuleDict()
        if classify_weight > 0:
            dim = adapters[str(teacher_stage)].dim
            self.classifiers.update({name: nn.Linear(dim, num_classes) for name in adapters})
        else:
            adapters[str(teacher_stage)].requires_grad_(False)

    def forward(self, output: ReidOutput, batch: Batch) -> Tensor:
        vectors = {
            name: adapter(output.maps[int(name)].float()) for name, adapter in self.adapters.items()
        }
        target = vectors[str(self.teacher_stage)].detach()
        distances = []
        for stage in self.student_stages:
            difference = vectors[str(stage)] - target
            distances.append(difference.norm() if self.published else difference.norm(dim=1).mean())
        loss = self.weight * add(distances)
        if self.classifiers:
            loss = loss + self.classify_weight * self._classify(vectors, batch)
        return loss

    def _classify(self, vectors: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The cross-entropy, averaged over adapters. Frames have the identity of their clip."""
        values = []
        for name, classifier in self.classifiers.items():
            num_frames = len(vectors[name]) // len(batch.pids)
            pids = batch.pids.repeat_interleave(num_frames)
            values.append(smoothed_cross_entropy(classifier(vectors[name]), pids, epsilon=0.1))
        return torch.stack(values).mean()
