"""The sampler that is balanced over datasets and cameras."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from ember_reid.data.round_samplers import DomainBalancedSampler, count_earlier

P, K = 6, 4
# Datasets of 12, 4 and 3 identities with 8 images each; cameras 0 to 2, 3 to 6, and 7.
DOMAINS = np.repeat([0, 1, 2], [12 * 8, 4 * 8, 3 * 8])
PIDS = np.arange(19).repeat(8)
CAMIDS = np.concatenate(
    [np.arange(12 * 8) % 3, 3 + np.arange(4 * 8) % 4, np.full(3 * 8, 7)],
)


def create(seed=0, **ranks):
    return DomainBalancedSampler(
        PIDS.tolist(),
        CAMIDS.tolist(),
        domains=DOMAINS.tolist(),
        num_instances=K,
        batch_size=P * K,
        seed=seed,
        **ranks,
    )


def batches_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return np.array(list(sampler))


def test_each_batch_has_as_many_identities_of_each_dataset():
    sampler = create()
    assert len(sampler) == len(PIDS) // (P * K) == 6
    drawn = Counter()
    for epoch in range(4):
        groups = batches_of(sampler, epoch).reshape(-1, P, K)
        pids = PIDS[groups]
        assert (pids == pids[:, :, :1]).all()
        assert all(len(set(row)) == P for row in pids[:, :, 0])
        assert (DOMAINS[groups[:, :, 0]] == [0, 1, 2, 0, 1, 2]).all()
        drawn.update(pids[:, :, 0].flatten().tolist())
    # 24 batches draw 48 identities of each dataset: 4 of each identity of the first, 12 of each of
    # the second. A round of the third has one batch and leaves one identity out.
    assert all(drawn[pid] == 4 for pid in range(12)) and all(drawn[p] == 12 for p in range(12, 16))
    assert sum(drawn[pid] for pid in range(16, 19)) == 48


def test_images_alternate_between_cameras():
    for group in batches_of(create(), 1).reshape(-1, K):
        assert len(set(group)) == K
        cameras = CAMIDS[group].tolist()
        # Three cameras: the fourth image is of one of them again.
        expected = {0: 3, 1: 4, 2: 1}[DOMAINS[group[0]]]
        assert len(set(cameras)) == expected
        if expected > 1:
            assert all(a != b for a, b in pairwise(cameras))


def test_an_identity_with_few_images_repeats_them_in_the_same_order():
    sampler = DomainBalancedSampler(
        [0, 0, 0], [5, 5, 6], domains=[0, 0, 0], num_instances=3, batch_size=3
    )
    (batch,) = batches_of(sampler, 0)
    assert sorted(batch) == [0, 1, 2] and 2 in batch[:2]
    sampler.num_instances = 7
    images = sampler._draw_images(np.arange(3), np.random.default_rng(0))
    assert images[3:6].tolist() == images[:3].tolist() and images[6] == images[0]


def test_an_epoch_is_a_function_of_seed_and_epoch_and_ranks_take_their_rows():
    whole = batches_of(create(), 3)
    assert (batches_of(create(), 3) == whole).all()
    assert (batches_of(create(seed=1), 3) != whole).any()
    assert (batches_of(create(), 2) != whole).any()
    ranks = [batches_of(create(rank=rank, world_size=2), 3) for rank in range(2)]
    assert (np.concatenate(ranks, axis=1) == whole).all()
    # Three identities per rank: one of each dataset.
    for part in ranks:
        assert (DOMAINS[part[:, ::K]] == [0, 1, 2]).all()


def test_earlier_values_are_counted():
    values = np.array([3, 5, 3, 3, 5, 1])
    assert count_earlier(values).tolist() == [0, 0, 1, 2, 1, 0]
    assert count_earlier(values[:0]).tolist() == []


@pytest.mark.parametrize(
    "num_identities, message",
    [
        (4, "the 4 identities of a batch cannot be divided equally over 3 .* multiple of 12"),
        (12, "needs 4 identities of each training dataset, but one has only 3; .* at most 36"),
    ],
)
def test_datasets_that_cannot_be_balanced(num_identities, message):
    with pytest.raises(ValueError, match=message):
        DomainBalancedSampler(
            PIDS, CAMIDS, domains=DOMAINS, num_instances=K, batch_size=num_identities * K
        )
