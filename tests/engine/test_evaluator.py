"""From images to embeddings, and what the criterion makes of a model's output."""

import math

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.data.batch import Batch, EmbeddingBatch
from ember_reid.engine.build import build_device
from ember_reid.engine.evaluator import EmbeddingAccumulator, create_evaluator
from ember_reid.engine.handlers.batch import LearningRate
from ember_reid.engine.losses.build import build_criterion
from ember_reid.modeling.output import ReidOutput
from ignite.engine import Engine
from torch import nn


def batch_of(indices, images=None):
    indices = torch.tensor(indices)
    images = torch.zeros(len(indices), 3, 2, 2, dtype=torch.uint8) if images is None else images
    return Batch(images, indices * 10, indices * 0, indices)


class FirstPixel(nn.Module):
    """The embedding of an image is the red value of its top left pixel, in training one more."""

    def forward(self, images):
        return ReidOutput(images[:, 0, 0, :1] + self.training)


def test_embeddings_are_in_order_of_the_images_and_repeats_are_dropped():
    model = FirstPixel().train()
    evaluator = create_evaluator(model, lambda images: images.float(), device=torch.device("cpu"))
    store = EmbeddingAccumulator()
    store.attach(evaluator)
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    # A second run clears the first one.
    for _ in range(2):
        evaluator.run(
            [
                batch_of([2, 0], images[[2, 0]]),
                batch_of([3, 1], images[[3, 1]]),
                batch_of([2], images[[2]]),
            ]
        )
    embedded = store.collect()
    assert embedded.indices.tolist() == [0, 1, 2, 3] and embedded.pids.tolist() == [0, 10, 20, 30]
    assert embedded.embeddings.squeeze(1).tolist() == [0.0, 1.0, 2.0, 3.0]
    assert isinstance(embedded, EmbeddingBatch) and not model.training


def test_flip_adds_the_mirror_image():
    evaluator = create_evaluator(
        FirstPixel(), lambda images: images.float(), device=torch.device("cpu"), flip=True
    )
    images = torch.tensor([[5, 7], [0, 0]], dtype=torch.uint8).expand(1, 3, 2, 2)
    evaluator.run([batch_of([0], images)])
    assert evaluator.state.output.embeddings.tolist() == [[12.0]]


def criterion_of(*words):
    return build_criterion(load_config(None, words), num_classes=4, feature_dim=2)


def test_losses_with_weight_zero_are_not_computed():
    assert list(criterion_of().terms) == ["ce", "triplet"]
    assert list(criterion_of("LOSS.CE.WEIGHT", "0", "LOSS.CIRCLE.WEIGHT", "2").terms) == [
        "triplet",
        "circle",
    ]


def test_losses_are_means_over_heads():
    pids = torch.tensor([0, 0, 1, 1])
    even = torch.zeros(4, 4)
    sure = 100.0 * nn.functional.one_hot(pids, 4).float()
    same = torch.zeros(4, 2)
    output = ReidOutput(same, (even, sure), (same, same))
    losses = criterion_of("LOSS.CE.EPSILON", "0", "LOSS.CE.WEIGHT", "3")(
        output, batch_of([0, 1, 2, 3])._replace(pids=pids)
    )
    assert losses["ce"].item() == pytest.approx(3 * (math.log(4) + 0) / 2, abs=1e-5)
    # All distances are equal, so the loss is the margin.
    assert losses["triplet"].item() == pytest.approx(0.3, abs=1e-5)


def test_center_loss_has_its_own_parameters():
    criterion = criterion_of("LOSS.CENTER.WEIGHT", "0.5")
    assert [tuple(p.shape) for p in criterion.parameters()] == [(4, 2)]
    assert list(criterion_of().parameters()) == []


def test_device_is_chosen_by_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert build_device(load_config()) == torch.device("cpu")
    with pytest.raises(ValueError, match="DEVICE is cuda, but torch finds no CUDA device"):
        build_device(load_config(None, ["DEVICE", "cuda"]))


def test_learning_rate_is_each_groups_own_times_the_schedule():
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD(
        [
            {"params": [a], "lr": 0.0, "initial_lr": 1.0},
            {"params": [b], "lr": 0.0, "initial_lr": 10.0},
        ],
        lr=0.0,
    )
    seen = []
    engine = Engine(
        lambda engine, batch: seen.append([group["lr"] for group in optimizer.param_groups])
    )
    LearningRate([optimizer], [0.25, 0.5, 0.75, 1.0]).attach(engine)
    engine.run([0, 0], max_epochs=2)
    assert seen == [[0.25, 2.5], [0.5, 5.0], [0.75, 7.5], [1.0, 10.0]]
