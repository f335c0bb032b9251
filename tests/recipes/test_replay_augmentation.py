"""Replay: what the augmentation of a recipe does to images, against published programs.

The columns: fraction of flipped images, padding, fraction of erased images, their aspects (height /
width), the value of erased pixels after normalization, and AutoAugment's probability and its decay.
"""

import random

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.data.build import build_augmentation
from ember_reid.data.strong_augmentations import decayed_probs

ANY, MEAN, ZERO, HALF = (0.3, 1 / 0.3), (0.485, 0.456, 0.406), (0.0, 0.0, 0.0), (0.5, 0.5, 0.5)
PROGRAMS = {
    # FastReID 64861ea fastreid/data/transforms/build.py:46-66, transforms.py:56-90 (fills pixels of
    # 0..255 with the mean), configs/Base-bagtricks.yml:35-38
    "dukemtmc/bot_R50": (0.5, 10, 0.5, ANY, ZERO, 0.0, 0),
    "market1501/agw_R50": (0.5, 10, 0.5, ANY, ZERO, 0.0, 0),
    "vehicleid/bot_R50-ibn": (0.5, 10, 0.5, ANY, ZERO, 0.0, 0),
    # autoaugment.py:491-507; 18,000 iterations and 16 processes in May, 60 and 8 in July
    "market1501/sbs_R50": (0.5, 10, 0.5, ANY, ZERO, 1.0, 18000 * 16),
    "dukemtmc/sbs_R50": (0.5, 10, 0.5, ANY, ZERO, 1.0, 60 * 8),
    # c9bc3ce configs/Base-SBS.yml: AUTOAUG PROB 0.1
    "fastreid-head/sbs_R50": (0.5, 10, 0.5, ANY, ZERO, 0.1, 0),
    "distill/market1501/R50-R18": (0.5, 10, 0.5, ANY, ZERO, 0.0, 0),
    "distill/fastdistill/R101-ibn_R34": (0.5, 10, 0.5, ANY, ZERO, 0.1, 0),
    # reid-strong-baseline 3da7e6f data/transforms/build.py:15-23: erasing after normalization
    "strong-baseline/market1501/2_warmup": (0.5, 10, 0.0, ANY, MEAN, 0.0, 0),
    "strong-baseline/market1501/7_center": (0.5, 10, 0.5, ANY, MEAN, 0.0, 0),
    # reid_baseline_with_syncbn 74a6b6b configs/veri.yml: mean 0.5, no padding
    "syncbn/veri": (0.5, 0, 0.5, ANY, HALF, 0.0, 0),
    # VKD a56b12e data/misc.py:64-98
    "distill/vkd/mars/resnet50": (0.5, 10, 0.5, (0.3, 3.3), ZERO, 0.0, 0),
    "distill/vkd/mars/self_resnet50": (0.5, 10, 0.5, (0.3, 3.3), ZERO, 0.0, 0),
    "distill/vkd/veri/resnet50": (0.5, 10, 0.5, (0.7, 1.4), ZERO, 0.0, 0),
    # reid_strong_baseline_KD b9d859e tools/train.py:43-82, data/transforms as its origin
    "distill/self/resnet50_published": (0.5, 10, 0.5, ANY, MEAN, 0.0, 0),
}
NUM = 250


@pytest.mark.parametrize("recipe", PROGRAMS)
def test_settings(recipe):
    s = build_augmentation(load_config(recipe)).settings
    found = (s.flip_prob, s.padding, s.erase_prob, s.erase_aspect, s.erase_fill)
    assert (*found, s.autoaug_prob, s.autoaug_decay) == PROGRAMS[recipe]
    assert (s.jitter_prob, s.affine_prob, s.augmix_prob, s.patch_prob) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "recipe",
    ["strong-baseline/market1501/7_center", "syncbn/veri", "distill/vkd/veri/resnet50"],
)
def test_images(recipe):
    flip, padding, erase, aspects, fill, _, _ = PROGRAMS[recipe]
    # Dark on the left, bright on the right.
    images = torch.full((NUM, 3, 96, 64), 60, dtype=torch.uint8)
    images[..., 32:] = 200
    augmentation = build_augmentation(load_config(recipe))
    out = augmentation(images, torch.Generator().manual_seed(0))
    dark, bright, black = (
        augmentation.normalization(torch.full((1, 3, 1, 1), value, dtype=torch.uint8)).flatten()
        for value in (60, 200, 0)
    )

    def equals(values):
        return (out - torch.as_tensor(values).view(3, 1, 1)).abs().amax(dim=1) < 1e-5

    # Bool [N, 96, 64]; no other values exist.
    is_dark, is_bright, is_black, erased = map(equals, (dark, bright, black, fill))
    assert (is_dark | is_bright | is_black | erased).all()
    assert (is_black.any(dim=(1, 2)).float().mean() > 0.9) == (padding > 0)
    columns = torch.arange(64.0)
    left = [
        (mask * columns).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)) for mask in (is_dark, is_bright)
    ]
    assert (left[0] > left[1]).float().mean().item() == pytest.approx(flip, abs=0.08)
    has_box = erased.any(dim=(1, 2))
    assert has_box.float().mean().item() == pytest.approx(erase, abs=0.08)
    heights, widths = erased.any(dim=2).sum(dim=1)[has_box], erased.any(dim=1).sum(dim=1)[has_box]
    area = erased.sum(dim=(1, 2))[has_box]
    assert torch.equal(area, heights * widths)
    share = area / (96 * 64)
    assert 0.015 < share.min() and 0.3 < share.max() < 0.42
    large = area > 500
    aspect = (heights / widths)[large]
    assert aspects[0] * 0.9 < aspect.min() and aspect.max() < aspects[1] * 1.1
    assert aspect.max() > 1.2 and aspect.min() < 0.85


def test_autoaugment_fades_as_in_the_program_of_may_2020():
    # autoaugment.py:491-507: applied unless a random number is below gamma, which grows by
    # 1 / total with each use. One of 16 processes sees 18,000 * 64 / 16 images. Ours uses
    # the expectation; the mean over the training is (1 - exp(-4)) / 4 = 24.5 %.
    rng, gamma, used = random.Random(0), 0.0, 0
    for _ in range(72000):
        if rng.random() > gamma:
            gamma, used = min(1.0, gamma + 1 / 18000), used + 1
    decay = build_augmentation(load_config("market1501/sbs_R50")).settings.autoaug_decay
    mean = decayed_probs(1.0, decay, 0, 72000 * 16).mean().item()
    assert mean == pytest.approx(0.2454, abs=1e-4) == pytest.approx(used / 72000, abs=0.01)
