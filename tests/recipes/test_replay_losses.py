"""Replay: the value of every loss of a recipe, against the peer's formula in plain Python.

The formulas are written from the sources that are named with them. The features are far apart, as
ImageNet features are, so that FastReID's form of the weighted triplet differs from the exact one.
"""

from math import exp, log, sqrt

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.data.batch import Batch
from ember_reid.engine.distill.losses.build import build_losses
from ember_reid.engine.distill.teachers.teacher import Teacher
from ember_reid.engine.losses.build import build_criterion
from ember_reid.modeling.model import GlobalHead, HeadOptions, ReidModel
from ember_reid.modeling.output import ReidOutput
from torch import nn

PIDS = [0, 0, 2, 2]
FEATURES = [[0.0, 1.0], [3.0, -2.0], [15.0, 4.0], [18.0, 9.0]]
LOGITS = [[2.0, -1.0, 0.5], [0.3, 0.1, -0.4], [1.5, 0.2, 1.0], [-0.7, 0.9, 2.2]]
TEACHER_FEATURES = [[1.0, 0.0], [2.0, 2.0], [9.0, 1.0], [12.0, 5.0]]
TEACHER_LOGITS = [[4.0, -2.0, 1.0], [1.0, -1.0, 0.0], [0.0, 0.5, 3.0], [-1.0, 0.0, 4.0]]
N, C = len(PIDS), len(LOGITS[0])


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def softmax(row, temperature=1.0):
    exps = [exp(value / temperature) for value in row]
    return [value / sum(exps) for value in exps]


def distance(x, y):
    return sqrt(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)))


def cross_entropy(logits, target):
    """`target(k, y)` is the probability of class k."""
    return mean(
        -sum(target(k, y) * log(p) for k, p in enumerate(softmax(row)))
        for row, y in zip(logits, PIDS, strict=True)
    )


def smooth_all(k, y, epsilon=0.1):
    # reid-strong-baseline 3da7e6f layers/triplet_loss.py:145-146
    return (1 - epsilon) * (k == y) + epsilon / C


def smooth_others(k, y, epsilon=0.1):
    # FastReID 64861ea fastreid/modeling/losses/cross_entroy_loss.py:60-63
    return 1 - epsilon if k == y else epsilon / (C - 1)


def hard(k, y):
    # SyncBN fork 74a6b6b losses/ (smoothing cannot be switched on); VKD tools/train_distill.py:84
    return float(k == y)


def circle_logits(logits, scale=64.0, margin=0.35):
    # FastReID 64861ea fastreid/layers/circle_softmax.py:27-38
    return [
        [
            scale * max(1 + margin - x, 0) * (x - (1 - margin))
            if k == y
            else scale * max(x + margin, 0) * (x - margin)
            for k, x in enumerate(value / scale for value in row)
        ]
        for row, y in zip(logits, PIDS, strict=True)
    ]


def hardest(i):
    # reid-strong-baseline layers/triplet_loss.py:60-74; FastReID triplet_loss.py:40-52
    d = [distance(FEATURES[i], other) for other in FEATURES]
    same = [PIDS[i] == pid for pid in PIDS]
    d_ap = max(d[j] for j in range(N) if same[j])
    return d_ap, min(d[j] for j in range(N) if not same[j])


def weighted(i):
    # FastReID 64861ea fastreid/modeling/losses/triplet_loss.py:13-18, 58-82
    d = [distance(FEATURES[i], other) for other in FEATURES]

    def weighted_mean(values, mask):
        highest = max(v * m for v, m in zip(values, mask, strict=True))
        exps = [exp(v - highest) * m for v, m in zip(values, mask, strict=True)]
        return sum(x * e for x, e in zip(d, exps, strict=True)) / (sum(exps) + 1e-6)

    same = [float(PIDS[i] == pid) for pid in PIDS]
    return weighted_mean(d, same), weighted_mean([-x for x in d], [1 - m for m in same])


def triplet(mine, margin):
    pairs = [mine(i) for i in range(N)]
    if margin == 0:
        return mean(log(1 + exp(d_ap - d_an)) for d_ap, d_an in pairs)
    return mean(max(0.0, d_ap - d_an + margin) for d_ap, d_an in pairs)


def center(centers):
    # reid-strong-baseline layers/center_loss.py:33-48: clamped, also the entries of other classes
    total = 0.0
    for row, y in zip(FEATURES, PIDS, strict=True):
        for k in range(C):
            squared = distance(row, centers[k]) ** 2 if k == y else 0.0
            total += min(max(squared, 1e-12), 1e12)
    return total / N


def divergence(p, q, temperature):
    """sum p log(p / q) x temperature^2 / batch, for logits."""
    rows = zip(p, q, strict=True)
    return temperature**2 * mean(
        sum(
            a * log(a / b)
            for a, b in zip(softmax(x, temperature), softmax(y, temperature), strict=True)
        )
        for x, y in rows
    )


def squared_distances(features):
    return [distance(x, y) ** 2 for x in features for y in features]


def vkd_distances():
    # VKD a56b12e model/loss.py:12-22, 95-101
    pairs = zip(squared_distances(FEATURES), squared_distances(TEACHER_FEATURES), strict=True)
    return 0.5 * mean((a - b) ** 2 for a, b in pairs)


BOT = {"ce": cross_entropy(LOGITS, smooth_others), "triplet": triplet(hardest, 0.3)}
SBS = {
    "ce": cross_entropy(circle_logits(LOGITS), smooth_others),
    "triplet": triplet(hardest, 0),
}
BASELINE = {"ce": cross_entropy(LOGITS, smooth_all), "triplet": triplet(hardest, 0.3)}
VKD = {"ce": cross_entropy(LOGITS, hard), "triplet": triplet(hardest, 0)}
EXPECTED = {
    "market1501/bot_R50": BOT,
    "dukemtmc/bot_R50": BOT,
    "market1501/agw_R50": BOT | {"triplet": triplet(weighted, 0)},
    "vehicleid/bot_R50-ibn": BOT | {"triplet": triplet(weighted, 0)},
    "market1501/sbs_R50": SBS,
    "fastreid-head/bot_R50": BOT,
    "distill/market1501/R50-R18": BOT,
    "distill/fastdistill/R101-ibn_R34": SBS,
    "strong-baseline/market1501/6_bnneck": BASELINE,
    "strong-baseline/market1501/7_center": BASELINE
    | {"center": 0.0005 * center([[1.0, 2.0], [0.0, 0.0], [16.0, 5.0]])},
    "syncbn/veri": {"ce": cross_entropy(LOGITS, hard), "triplet": triplet(hardest, 0.3)},
    "distill/vkd/mars/resnet50": VKD,
    "distill/vkd/veri/self_resnet50": VKD,
    "distill/self/resnet50_published": BASELINE,
}


def output_of(features, logits, maps=()):
    features = torch.tensor(features)
    return ReidOutput(features, (torch.tensor(logits),), (features,), maps)


def batch_of(*teachers):
    pids = torch.tensor(PIDS)
    return Batch(torch.zeros(N, 3, 8, 8), pids, pids, pids, teachers)


@pytest.mark.parametrize("recipe", EXPECTED)
def test_losses_of_images_and_identities(recipe):
    criterion = build_criterion(load_config(recipe), num_classes=C, feature_dim=2)
    for name, parameter in criterion.named_parameters():
        if name.endswith("centers"):
            parameter.data.copy_(torch.tensor([[1.0, 2.0], [0.0, 0.0], [16.0, 5.0]]))
    values = criterion(output_of(FEATURES, LOGITS), batch_of())
    values = {name: value.item() for name, value in values.items()}
    assert values == pytest.approx(EXPECTED[recipe], rel=1e-5)


def test_the_published_form_of_the_weighted_triplet_matters_here():
    criterion = build_criterion(
        load_config("market1501/agw_R50", ["LOSS.TRIPLET.FORM", "exact"]),
        num_classes=C,
        feature_dim=2,
    )
    exact = criterion(output_of(FEATURES, LOGITS), batch_of())["triplet"].item()
    assert abs(exact - EXPECTED["market1501/agw_R50"]["triplet"]) > 1e-3


class FourStages(nn.Module):
    """A backbone with four stages of 2 channels."""

    channels = (2, 2, 2, 2)


def small_model():
    return ReidModel(FourStages(), GlobalHead(2, C, HeadOptions()))


# DistillReID dc9d1e3 kd_trainer.py:138-142; FastDistill 15e1729 distiller.py:105-114; VKD a56b12e
# model/loss.py:64-75 and tools/train_distill.py:146-153 (weights)
DISTILLATION = {
    "distill/market1501/R50-R18": {"kd": divergence(TEACHER_LOGITS, LOGITS, 4)},
    "distill/fastdistill/R101-ibn_R34": {
        "kd": (divergence(TEACHER_LOGITS, LOGITS, 16) + divergence(LOGITS, TEACHER_LOGITS, 16)) / 2
    },
    "distill/vkd/mars/self_resnet50": {
        "kd": 0.1 * divergence(TEACHER_LOGITS, LOGITS, 10),
        "distances": 1e-4 * vkd_distances(),
    },
}


@pytest.mark.parametrize("recipe", DISTILLATION)
def test_losses_of_distillation(recipe):
    teachers = [Teacher(small_model())]
    losses = build_losses(load_config(recipe), small_model(), teachers, num_classes=C)
    batch = batch_of(output_of(TEACHER_FEATURES, TEACHER_LOGITS))
    values = {
        name: loss.weight * loss.function(output_of(FEATURES, LOGITS), batch).item()
        for name, loss in losses.items()
    }
    assert values == pytest.approx(DISTILLATION[recipe], rel=1e-5)


def test_self_distillation_is_one_norm_over_the_batch_from_stage_1_to_stage_3():
    # reid_strong_baseline_KD b9d859e engine/trainer.py:46-63: 0.03 || z1 - z3 ||, z3 detached
    torch.manual_seed(0)
    recipe = load_config("distill/self/resnet50_published")
    loss = build_losses(recipe, small_model(), [], num_classes=C)["self"]
    maps = tuple(torch.randn(N, 2, 64 >> i, 32 >> i, requires_grad=True) for i in range(4))
    value = loss.weight * loss.function(output_of(FEATURES, LOGITS, maps), batch_of())
    first, third = (loss.function.adapters[name](maps[int(name)]) for name in ("0", "2"))
    assert value.item() == pytest.approx(0.03 * (first - third).square().sum().sqrt().item())
    value.backward()
    assert [value.grad is not None for value in maps] == [True, False, False, False]
    assert not any(p.requires_grad for p in loss.function.adapters["2"].parameters())
