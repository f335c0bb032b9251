"""Replay: the batches of recipes, on data with the numbers of images and identities of benchmarks.

P identities x K images, batches per epoch, and how often an epoch or round shows an identity and an
image. The sources are named with each case.
"""

from pathlib import Path

import numpy as np
import pytest
from ember_reid.config import load_config
from ember_reid.data.build import build_train_sampler
from ember_reid.data.records import Record

MARKET, DUKE, VERI = (12936, 751), (16522, 702), (37778, 576)
# Tracklets of MARS; a tenth of VehicleID (113,346 images, 221 batches) and of VERI-Wild (277,797
# images, 542 batches).
MARS, VEHICLEID, VERIWILD = (8298, 625), (11334, 1316), (27779, 3067)

# Recipe, data, P, K, batches per epoch. FastReID: floor(images / batch), 64861ea
# fastreid/engine/defaults.py:492-499 with fastreid/data/build.py:38-48. Its samplers at 64861ea,
# fastreid/data/samplers/triplet_sampler.py: "naive" 92-162, "balanced" 20-90 (named
# RandomIdentitySampler in 35076d5 and 5fb5e77).
FASTREID = [
    ("market1501/bot_S50", MARKET, 16, 4, 202, "naive"),
    ("market1501/sbs_S50", MARKET, 4, 16, 202, "naive"),
    ("dukemtmc/agw_R50", DUKE, 16, 4, 258, "naive"),
    ("fastreid-head/bot_R50", MARKET, 16, 4, 202, "naive"),
    # kdreid of dc9d1e3 has the loader of FastReID.
    ("distill/market1501/R50-R18", MARKET, 16, 4, 202, "naive"),
    # 15e1729 projects/FastDistill/configs/Base-kd.yml: 256 images, K 16 of Base-SBS.yml
    ("distill/fastdistill/R101-ibn_R34", DUKE, 16, 16, 64, "naive"),
    # 35076d5 configs/Base-bagtricks.yml: MAX_ITER 24000, 202 a pass
    ("market1501/bot_R50", MARKET, 16, 4, 202, "balanced"),
    ("market1501/sbs_R50", MARKET, 4, 16, 202, "balanced"),
    ("veri776/sbs_R50-ibn", VERI, 4, 16, 590, "balanced"),
    # 5fb5e77 configs/VehicleID/bagtricks_R50-ibn.yml: 28600 iterations of 512
    ("vehicleid/bot_R50-ibn", VEHICLEID, 128, 4, 22, "balanced"),
    ("veriwild/bot_R50-ibn", VERIWILD, 128, 4, 54, "balanced"),
]
# Batches of one pass of the peer's sampler, see `count_baseline_batches`.
BASELINE = [
    # reid-strong-baseline 3da7e6f configs/softmax_triplet_with_center.yml:25, 48
    ("strong-baseline/market1501/7_center", MARKET, 16, 4),
    # reid_baseline_with_syncbn 74a6b6b configs/veri.yml: 6 x 6
    ("syncbn/veri", VERI, 6, 6),
    # reid_strong_baseline_KD b9d859e tools/train.py:43-82: 8 images, K 4
    ("distill/self/resnet50_published", MARKET, 2, 4),
]
# VKD a56b12e data/samplers.py:19-55 (each identity at most once), commands.txt (P and K)
VKD = [
    ("distill/vkd/mars/resnet50", MARS, 8, 4, 625 // 8),
    ("distill/vkd/mars/self_resnet50", MARS, 12, 4, 625 // 12),
    ("distill/vkd/veri/resnet50", (1678, 576), 18, 4, 576 // 18),
]


def make_records(images, identities):
    """Records with 1 or more images per identity, of 6 cameras."""
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.full(identities, 3.0))
    counts = 1 + rng.multinomial(images - identities, share)
    pids = np.repeat(np.arange(identities), counts)
    path = (Path("x.jpg"),)
    return [
        Record(path, int(pid), int(camid))
        for pid, camid in zip(pids, rng.integers(6, size=images), strict=True)
    ]


def draw_batches(recipe, data, *, P, K, epochs=1):
    """The records, and the batches of the first epochs as [batches, P, K] record indices."""
    records = make_records(*data)
    sampler = build_train_sampler(load_config(recipe), records)
    batches = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        batches += list(sampler)
    assert {len(batch) for batch in batches} == {P * K}
    batches = np.array(batches).reshape(-1, P, K)
    pids = np.array([record.pid for record in records])
    # K images of each of P different identities.
    identities = pids[batches]
    assert (identities == identities[:, :, :1]).all()
    assert (count_different(identities[:, :, 0]) == P).all()
    return records, pids, batches


def count_different(values):
    """The number of different values along the last axis."""
    values = np.sort(values, axis=-1)
    return 1 + (np.diff(values, axis=-1) > 0).sum(axis=-1)


@pytest.mark.parametrize(("recipe", "data", "P", "K", "per_epoch", "sampler"), FASTREID)
def test_fastreid(recipe, data, P, K, per_epoch, sampler):
    records, pids, batches = draw_batches(recipe, data, P=P, K=K)
    assert len(batches) == per_epoch == data[0] // (P * K)
    drawn = pids[batches[:, :, 0]]
    if sampler == "balanced":
        # A round is a permutation of the identities, cut into batches of P.
        per_round = data[1] // P
        first_round = drawn[:per_round].flatten()
        assert len(set(first_round)) == len(first_round)
        cameras = np.array([record.camid for record in records])[batches]
        num_cameras = count_different(cameras)
        # The first image's camera is not repeated if the identity has other cameras.
        same = (cameras[:, :, 1:] == cameras[:, :, :1]).any(axis=2)
        assert (num_cameras[same] == 1).all() and same.mean() < 0.1
    else:
        # A round cuts each identity into groups of K and shows each at most once.
        groups = np.maximum(np.bincount(pids) // K, 1)
        left = groups.copy()
        for row in drawn:
            if (left > 0).sum() < P:
                left = groups.copy()
            left[row] -= 1
            assert left.min() >= 0
        # Identities with at least K images show K different ones.
        large = np.bincount(pids)[drawn] >= K
        assert (count_different(batches)[large] == K).all()


def count_baseline_batches(pids, *, P, K):
    """Batches of a pass of the strong baseline's sampler (data/samplers/triplet_sampler.py:45-71).

    P identities are drawn uniformly from those with groups left, until fewer than P have any.
    """
    rng = np.random.default_rng(0)
    left = np.maximum(np.bincount(pids) // K, 1)
    batches = 0
    while (left > 0).sum() >= P:
        left[rng.choice(np.flatnonzero(left), P, replace=False)] -= 1
        batches += 1
    return batches


@pytest.mark.parametrize(("recipe", "data", "P", "K"), BASELINE)
def test_strong_baseline_and_its_derivatives(recipe, data, P, K):
    _, pids, batches = draw_batches(recipe, data, P=P, K=K)
    # Each image at most once per epoch, unless its identity has fewer than K.
    large = np.bincount(pids)[pids[batches.flatten()]] >= K
    shown = batches.flatten()[large]
    assert len(set(shown)) == len(shown)
    # An epoch here has the largest possible number of batches; the peer's ends earlier by chance.
    theirs = count_baseline_batches(pids, P=P, K=K)
    assert theirs <= len(batches) <= 1.03 * theirs


@pytest.mark.parametrize(("recipe", "data", "P", "K", "per_epoch"), VKD)
def test_vkd_shows_each_identity_once_per_epoch(recipe, data, P, K, per_epoch):
    _, pids, batches = draw_batches(recipe, data, P=P, K=K, epochs=2)
    assert len(batches) == 2 * per_epoch
    for epoch in (batches[:per_epoch], batches[per_epoch:]):
        drawn = pids[epoch[:, :, 0]].flatten()
        assert len(set(drawn)) == len(drawn)
