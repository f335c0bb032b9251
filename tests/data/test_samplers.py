import threading
from collections import Counter

import numpy as np
import pytest
from ember_reid.data.samplers import (
    IdentityBatchSampler,
    IdentityOnceSampler,
    RandomBatchSampler,
    most_steps,
    split_batches,
)


def unbalanced_pids(num_pids=13, seed=0):
    """1 to 24 images an identity, shuffled."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.repeat(np.arange(num_pids), rng.integers(1, 25, num_pids))).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_batches_are_p_identities_of_k_images(seed):
    pids = unbalanced_pids(seed=seed)
    sampler = IdentityBatchSampler(pids, num_instances=4, batch_size=16, seed=seed)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) > 0
        used = Counter(index for batch in batches for index in batch)
        for batch in batches:
            counts = Counter(pids[index] for index in batch)
            assert len(counts) == 4 and set(counts.values()) == {4}
            for place in range(0, 16, 4):
                assert len({pids[index] for index in batch[place : place + 4]}) == 1
        sizes = Counter(pids)
        assert all(n == 1 for index, n in used.items() if sizes[pids[index]] >= 4)


def test_length_of_the_baseline_example():
    # One group of 4 per identity, 2 identities per batch.
    pids = [pid for pid in range(8) for _ in range(6)]
    assert len(IdentityBatchSampler(pids, num_instances=4, batch_size=8)) == 4


def test_most_steps_equals_a_search():
    rng = np.random.default_rng(3)
    for _ in range(50):
        groups = rng.integers(1, 9, rng.integers(2, 9))
        p = int(rng.integers(1, len(groups) + 1))
        fits = [t for t in range(1, 80) if np.minimum(groups, t).sum() >= p * t]
        assert most_steps(groups, p) == max(fits)
    # The large identity needs another one in every step.
    assert most_steps(np.array([9, 1, 1]), 2) == 2


def test_once_an_epoch():
    pids = [pid for pid in range(10) for _ in range(pid + 1)]
    batches = list(IdentityOnceSampler(pids, num_instances=4, batch_size=16))
    # floor(10 identities / 4).
    assert [len(batch) for batch in batches] == [16, 16]
    drawn = [pids[index] for batch in batches for index in batch[::4]]
    assert len(set(drawn)) == 8


def test_small_identities_are_drawn_with_replacement():
    sampler = IdentityBatchSampler([0, 1, 1, 1, 1], num_instances=4, batch_size=8)
    (batch,) = sampler
    assert sorted(batch)[:4] == [0, 0, 0, 0] and sorted(batch)[4:] == [1, 2, 3, 4]


def test_same_epoch_same_batches_other_epoch_others():
    sampler = IdentityBatchSampler(unbalanced_pids(), num_instances=2, batch_size=8, seed=5)
    sampler.set_epoch(3)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(4)
    assert list(sampler) != first
    other = IdentityBatchSampler(unbalanced_pids(), num_instances=2, batch_size=8, seed=6)
    other.set_epoch(3)
    assert list(other) != first


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_global_batches_in_whole_identities(world_size):
    pids = unbalanced_pids()
    arguments = {"num_instances": 4, "batch_size": 16, "seed": 1}
    whole = list(IdentityBatchSampler(pids, **arguments))
    ranks = [
        list(IdentityBatchSampler(pids, **arguments, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert [
        [index for part in parts for index in part] for parts in zip(*ranks, strict=True)
    ] == whole
    assert all(
        set(Counter(pids[i] for i in part).values()) == {4} for rank in ranks for part in rank
    )


def test_skip_continues_in_mid_epoch_once():
    sampler = IdentityBatchSampler(unbalanced_pids(), num_instances=4, batch_size=16)
    whole = list(sampler)
    sampler.skip(3)
    sampler.set_epoch(0)
    assert list(sampler) == whole[3:]
    assert list(sampler) == whole
    with pytest.raises(ValueError, match="cannot skip 99 batches of an epoch of"):
        sampler.skip(99)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 10}, "batch of 10 .* not divisible by 4 images of an identity"),
        (
            {"batch_size": 12, "world_size": 2},
            "3 identities .* divided equally among 2 processes; .* must be a multiple of 8",
        ),
        (
            {"batch_size": 16},
            "needs 4 identities .* has 3; lower SOLVER.IMS_PER_BATCH to at most 12",
        ),
        ({"batch_size": 8, "rank": 2, "world_size": 2}, "rank is 2; it must be in 0..1"),
    ],
)
def test_identity_sampler_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        IdentityBatchSampler([0, 0, 1, 1, 2], num_instances=4, **arguments)


def test_random_sampler_uses_every_record_at_most_once():
    sampler = RandomBatchSampler(10, batch_size=4, seed=2)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 2
    assert len({index for batch in batches for index in batch}) == 8
    halves = [
        list(RandomBatchSampler(10, batch_size=4, seed=2, rank=r, world_size=2)) for r in (0, 1)
    ]
    assert [a + b for a, b in zip(*halves, strict=True)] == batches
    with pytest.raises(ValueError, match="has 3 images, fewer than a batch of 4"):
        RandomBatchSampler(3, batch_size=4)
    with pytest.raises(ValueError, match="batch of 5 .* among 2 processes"):
        RandomBatchSampler(30, batch_size=5, world_size=2)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_test_batches_cover_everything_once_in_order(world_size):
    ranks = [
        split_batches(7, batch_size=2, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert [index for rank in ranks for batch in rank for index in batch] == list(range(7))
    assert all(len(batch) <= 2 for rank in ranks for batch in rank)


def test_an_iterator_that_is_not_used_does_not_take_the_skip():
    # a loader with processes makes two iterators in an epoch and uses the second
    sampler = RandomBatchSampler(40, batch_size=4)
    whole = list(sampler)
    sampler.skip(3)
    iter(sampler)
    assert list(sampler) == whole[3:]
    assert list(sampler) == whole


def test_the_next_epoch_is_planned_in_a_thread_with_the_same_batches(monkeypatch):
    pids = [pid for pid in range(6) for _ in range(4)]
    sampler = IdentityBatchSampler(pids, num_instances=2, batch_size=4, seed=3)
    expected = [sampler._plan(epoch).tolist() for epoch in (1, 2, 3, 1)]
    threads, plan = [], sampler._plan

    def watched_plan(epoch):
        threads.append((epoch, threading.current_thread().name))
        return plan(epoch)

    monkeypatch.setattr(sampler, "_plan", watched_plan)
    found = []
    # Epoch 1 comes again, as when a run is evaluated with precise batch norms.
    for epoch in (1, 2, 3, 1):
        sampler.set_epoch(epoch)
        found.append(list(sampler))
    assert found == expected
    sampler._next_plan.result_for(0)
    assert threads == [
        (1, "MainThread"),
        (2, "sampler"),
        (3, "sampler"),
        (4, "sampler"),
        (1, "MainThread"),
        (2, "sampler"),
    ]


def test_an_error_of_the_planning_thread_is_raised_by_the_next_epoch(monkeypatch):
    sampler = RandomBatchSampler(8, batch_size=4)
    plan = sampler._plan

    def fail(epoch):
        if epoch == 1:
            raise ValueError("no such epoch")
        return plan(epoch)

    monkeypatch.setattr(sampler, "_plan", fail)
    assert len(list(sampler)) == 2
    sampler.set_epoch(1)
    with pytest.raises(ValueError, match="no such epoch"):
        list(sampler)
