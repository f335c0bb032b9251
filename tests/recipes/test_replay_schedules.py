"""Replay: the learning rate of published programs at every iteration, against our recipes.

Each formula below is written by hand from the program's source, named with file and line.
"""

import math

import pytest
from ember_reid.config import load_config
from ember_reid.solver import build_schedule


def warmup_factor(i, length, factor=0.01):
    # FastReID 64861ea fastreid/solver/lr_scheduler.py:140-141
    return 1.0 if i >= length else factor * (1 - i / length) + i / length


def multistep(i, milestones, warmup, gamma=0.1, factor=0.01):
    # FastReID 64861ea fastreid/solver/lr_scheduler.py:45
    return warmup_factor(i, warmup, factor) * gamma ** sum(m <= i for m in milestones)


def delayed_cosine(i, warmup, delay, end, eta_min):
    # FastReID 64861ea fastreid/solver/lr_scheduler.py:98-116
    if i <= warmup:
        return warmup_factor(i, warmup)
    if i <= delay:
        return 1.0
    return eta_min + (1 - eta_min) * (1 + math.cos(math.pi * (i - delay) / (end - delay))) / 2


def ours(recipe, iterations_per_epoch):
    cfg = load_config(recipe)
    factor = build_schedule(cfg, iterations_per_epoch)
    total = cfg.SOLVER.MAX_EPOCHS * iterations_per_epoch
    # Ours are counted from 1.
    return [factor(i + 1) for i in range(total)]


# (recipe, iterations per epoch = floor(images / batch), milestones and warm-up in iterations,
# shift of our steps because epochs are whole). FastReID 64861ea configs/Base-bagtricks.yml:49-61
# with fastreid/engine/defaults.py:492-499; May: 35076d5 configs/Base-bagtricks.yml, and the
# configurations of MSMT17 (35076d5), VehicleID and VERI-Wild (5fb5e77).
MULTISTEP = [
    ("market1501/bot_S50", 202, (40 * 202, 90 * 202), 10 * 202, 0),
    ("dukemtmc/agw_R50", 258, (40 * 258, 90 * 258), 10 * 258, 0),
    ("distill/msmt17/R50-R18", 472, (40 * 472, 90 * 472), 10 * 472, 0),
    ("market1501/bot_R50", 202, (8000, 18000), 2000, 80),
    ("market1501/agw_R101-ibn", 202, (8000, 18000), 2000, 80),
    ("msmt17/bot_R50-ibn", 472, (19000, 33000), 4700, 120),
    ("vehicleid/bot_R50-ibn", 221, (8800, 19800), 2200, 90),
    ("veriwild/bot_R50-ibn", 542, (21600, 48600), 5400, 180),
]


@pytest.mark.parametrize(("recipe", "per_epoch", "milestones", "warmup", "shift"), MULTISTEP)
def test_steps_of_fastreid_2020(recipe, per_epoch, milestones, warmup, shift):
    near = [range(m - shift, m + shift) for m in milestones]
    for i, factor in enumerate(ours(recipe, per_epoch)):
        if not any(i in steps for steps in near):
            # Our warm-up is one iteration ahead, and epochs are rounded.
            expected = multistep(i, milestones, warmup)
            assert factor == pytest.approx(expected, abs=2e-3), (recipe, i)


# FastReID 64861ea configs/Base-Strongerbaseline.yml:37-50, configs/VeRi/sbs_R50-ibn.yml;
# May: 35076d5 configs/Base-Strongerbaseline.yml, 1eea244 configs/MSMT17/mgn_R50-ibn.yml,
# 5fb5e77 configs/VeRi/sbs_R50-ibn.yml. The tolerance covers epochs that were rounded.
COSINE = [
    ("market1501/sbs_S50", 202, 10 * 202, 30 * 202, 60 * 202, 7.7e-7 / 3.5e-4, 1e-3),
    ("dukemtmc/mgn_R50-ibn", 258, 10 * 258, 30 * 258, 60 * 258, 7.7e-7 / 3.5e-4, 1e-3),
    ("market1501/sbs_R50", 202, 2000, 9000, 18000, 7.7e-7 / 3.5e-4, 0.02),
    ("msmt17/mgn_R50-ibn", 472, 4700, 14000, 28000, 7.7e-7 / 3.5e-4, 0.02),
    ("veri776/sbs_R50-ibn", 590, 2950, 17700, 35400, 7.7e-5 / 1e-2, 1e-3),
]


@pytest.mark.parametrize(
    ("recipe", "per_epoch", "warmup", "delay", "end", "eta_min", "tolerance"), COSINE
)
def test_cosines_of_fastreid_2020(recipe, per_epoch, warmup, delay, end, eta_min, tolerance):
    for i, factor in enumerate(ours(recipe, per_epoch)):
        expected = delayed_cosine(i, warmup, delay, end, eta_min)
        assert factor == pytest.approx(expected, abs=tolerance), (recipe, i)


def test_steps_of_the_last_fastreid_are_counted_from_the_end_of_the_warmup():
    # c9bc3ce fastreid/engine/hooks.py:263-267 steps once per epoch after the warm-up: 0.1 from the
    # 0-based epoch 49, 0.01 from 99 on Market-1501; warm-up of 2000 iterations from 0.1
    # (configs/Base-bagtricks.yml:60-68).
    factors = ours("fastreid-head/bot_R50", 202)
    for i, factor in enumerate(factors):
        expected = 0.1 ** ((i // 202 >= 49) + (i // 202 >= 99)) * warmup_factor(i, 2000, 0.1)
        assert factor == pytest.approx(expected, abs=1e-3), i


def test_fastdistill():
    # 15e1729 fastreid/solver/build.py:38-56 and fastreid/engine/hooks.py:253-258: once per epoch,
    # 10 epochs of warm-up from 0.1, 30 of cosine to 7e-7 after epoch 30.
    factors = ours("distill/fastdistill/R34", 64)
    for i, factor in enumerate(factors):
        epoch = i // 64
        if epoch < 10:
            # Our warm-up is one epoch ahead.
            expected = 0.1 * (1 - (epoch + 1) / 10) + (epoch + 1) / 10
        else:
            x = max(epoch - 29, 0) / 30
            expected = 1e-3 + (1 - 1e-3) * (1 + math.cos(math.pi * x)) / 2
        assert factor == pytest.approx(expected, abs=1e-6), i


@pytest.mark.parametrize(
    ("recipe", "milestones", "gamma", "warmup"),
    [
        # reid-strong-baseline 3da7e6f configs/softmax_triplet_with_center.yml:47-52 and
        # solver/lr_scheduler.py:44-58; stepped before each epoch, which is counted from 1.
        ("strong-baseline/market1501/7_center", (40, 70), 0.1, 10),
        ("distill/self/resnet50_published", (40, 70), 0.1, 10),
        # reid_baseline_with_syncbn 74a6b6b configs/veri.yml:35-40
        ("syncbn/veri", (20, *range(30, 256, 15)), 0.6, 10),
        # VKD a56b12e tools/train_v2v.py:66-74 and commands.txt: stepped after each epoch, which is
        # counted from 0; tools/train_distill.py:54-56, 115-122 with 500 epochs, 300 and 150.
        ("distill/vkd/mars/resnet50", (101, 201), 0.1, 0),
        ("distill/vkd/mars/resnet18", (51, 101, 151, 201, 251), 0.1, 0),
        ("distill/vkd/veri/resnet50", (201, 251), 0.1, 0),
        ("distill/vkd/mars/self_resnet50", (301, 451), 0.1, 0),
        ("distill/vkd/duke/resnet101_resnet34", (301, 451), 0.1, 0),
    ],
)
def test_schedules_by_epoch(recipe, milestones, gamma, warmup):
    for i, factor in enumerate(ours(recipe, 10)):
        expected = multistep(i // 10 + 1, milestones, warmup, gamma)
        assert factor == pytest.approx(expected, abs=1e-12), i


@pytest.mark.parametrize(
    ("recipe", "warm"),
    [
        ("cion/market1501/r50_ibn", 20),
        ("transreid/msmt17/vit_base", 5),
        ("solider/market1501/swin_tiny", 20),
        ("transreid-ssl/market1501/vit_small", 20),
    ],
)
def test_cosine_of_transreid_is_computed_from_the_first_epoch(recipe, warm):
    # TransReID 6227ebd solver/cosine_lr.py and solver/scheduler_factory.py:8-41, stepped before
    # each epoch, which is counted from 1 (processor/processor.py:47-51).
    for i, factor in enumerate(ours(recipe, 10)):
        t = i // 10 + 1
        expected = 0.01 + t * 0.99 / warm
        if t >= warm:
            expected = 0.002 + 0.998 * (1 + math.cos(math.pi * t / 120)) / 2
        assert factor == pytest.approx(expected, abs=1e-12), i
