"""FastReID's samplers: epoch length, batch composition, a stream across epochs."""

from collections import Counter

import numpy as np
import pytest
from ember_reid.data.fastreid_samplers import CameraBalancedSampler, IdentityStreamSampler

P, K = 3, 4
# 1 to 19 images per identity, 10 identities, 4 cameras; identity 3 is seen by one camera only.
PIDS = np.repeat(np.arange(10), [1, 2, 4, 6, 8, 10, 12, 13, 16, 19])
CAMIDS = np.where(PIDS == 3, 0, np.arange(len(PIDS)) % 4)


def stream(seed=0, **ranks):
    return IdentityStreamSampler(
        PIDS.tolist(), num_instances=K, batch_size=P * K, seed=seed, **ranks
    )


def cameras(seed=0, **ranks):
    return CameraBalancedSampler(
        PIDS.tolist(), CAMIDS.tolist(), num_instances=K, batch_size=P * K, seed=seed, **ranks
    )


def batches_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def market_shaped_pids():
    """751 identities, 12,936 images, 2 to 72 images per identity."""
    rng = np.random.default_rng(0)
    counts = np.full(751, 2) + rng.multinomial(12936 - 2 * 751, np.full(751, 1 / 751))
    return np.repeat(np.arange(751), counts).tolist()


def test_market_has_202_batches_of_64():
    pids = market_shaped_pids()
    assert len(pids) == 12936 and 202 == 12936 // 64
    whole = IdentityStreamSampler(pids, num_instances=4, batch_size=64)
    balanced = CameraBalancedSampler(pids, [0] * len(pids), num_instances=4, batch_size=64)
    for sampler in (whole, balanced):
        batches = batches_of(sampler, 1)
        assert len(batches) == len(sampler) == 202 and {len(batch) for batch in batches} == {64}
    # A round has 46 batches (751 // 16 identities). Epoch 1 is batches 202-403, rounds 4 to 8.
    counts = Counter(pids[index] for batch in batches for index in batch[::4])
    assert sum(counts.values()) == 202 * 16 and max(counts.values()) == 5


@pytest.mark.parametrize("make", [stream, cameras])
def test_batches_are_p_identities_of_k_images(make):
    sampler = make()
    assert len(sampler) == len(PIDS) // (P * K) == 7
    for epoch in range(4):
        for batch in batches_of(sampler, epoch):
            groups = PIDS[np.array(batch)].reshape(P, K)
            assert (groups == groups[:, :1]).all() and len(set(groups[:, 0])) == P


@pytest.mark.parametrize("make", [stream, cameras])
def test_an_epoch_is_a_function_of_seed_and_epoch(make):
    in_order = [batches_of(sampler, epoch) for sampler in [make(seed=3)] for epoch in range(6)]
    assert batches_of(make(seed=3), 5) == in_order[5]
    assert batches_of(make(seed=3), 2) == in_order[2]
    assert len({str(epoch) for epoch in in_order}) == 6
    assert batches_of(make(seed=4), 2) != in_order[2]


@pytest.mark.parametrize("make", [stream, cameras])
def test_ranks_take_their_rows(make):
    whole = batches_of(make(), 2)
    ranks = [batches_of(make(rank=rank, world_size=3), 2) for rank in range(3)]
    assert [a + b + c for a, b, c in zip(*ranks, strict=True)] == whole


@pytest.mark.parametrize("make", [stream, cameras])
def test_skip(make):
    sampler = make()
    whole = batches_of(sampler, 1)
    sampler.skip(2)
    assert list(sampler) == whole[2:]


def test_the_stream_has_whole_rounds():
    # Groups of 4: 1 1 1 1 2 2 3 3 4 4. A slow loop over the concatenated epochs finds the rounds:
    # no identity exceeds its groups, and a round ends when fewer than 3 have groups left.
    groups = np.maximum(np.bincount(PIDS) // K, 1)
    sampler = stream(seed=1)
    left, rounds, images = groups.copy(), 0, set()
    for epoch in range(10):
        for batch in batches_of(sampler, epoch):
            if (left > 0).sum() < P:
                left, rounds, images = groups.copy(), rounds + 1, set()
            for place in range(0, P * K, K):
                group = batch[place : place + K]
                pid = PIDS[group[0]]
                left[pid] -= 1
                assert left[pid] >= 0
                if (PIDS == pid).sum() >= K:
                    assert len(set(group)) == K and not images & set(group)
                images.update(group)
    # 70 batches x 3 groups, 22 groups a round, at most 3 rounds' worth lost at the ends
    assert 70 * P / 22 - 1 <= rounds <= 70 * P / 22 + 4


def test_identities_are_uniform_and_images_from_other_cameras():
    sampler = cameras(seed=2)
    drawn, groups = Counter(), []
    for epoch in range(30):
        for batch in batches_of(sampler, epoch):
            for place in range(0, P * K, K):
                groups.append(np.array(batch[place : place + K]))
                drawn[PIDS[batch[place]]] += 1
    # 30 epochs x 7 batches = 70 rounds of 3 batches; a round leaves one of ten identities out.
    assert sum(drawn.values()) == 630 and all(45 <= drawn[pid] <= 70 for pid in range(10))
    for first, *others in groups:
        pid = PIDS[first]
        if pid == 0:
            assert others == [first] * (K - 1)
        elif pid == 3:
            assert first not in others and len(set(others)) == K - 1
        else:
            assert CAMIDS[first] not in CAMIDS[others]
        if (PIDS == pid).sum() - (CAMIDS[PIDS == pid] == CAMIDS[first]).sum() >= K:
            assert len(set(others)) == K - 1


@pytest.mark.parametrize("pids", [[0, 0, 0], [0, 1, 2]])
def test_fewer_images_than_a_batch(pids):
    with pytest.raises(ValueError, match="a batch needs 2 identities|has 3 images, fewer than"):
        IdentityStreamSampler(pids, num_instances=2, batch_size=4)
    with pytest.raises(ValueError, match="a batch needs 2 identities|has 3 images, fewer than"):
        CameraBalancedSampler(pids, pids, num_instances=2, batch_size=4)
