"""The augmentation of fixed shape gives the bits of `Augmentation`."""

import pytest
import torch
from ember_reid.data.augment import Boxes
from ember_reid.data.augment_fixed import (
    FixedShapeAugmentation,
    create_table,
    flip_and_crop_rows,
    normalize_and_erase,
)
from ember_reid.data.augment_settings import AugmentationSettings
from ember_reid.data.dataset import Normalization
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random_images(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def create(**settings) -> FixedShapeAugmentation:
    return FixedShapeAugmentation(Normalization(MEAN, STD), AugmentationSettings(**settings))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def finish(
    augmentation: FixedShapeAugmentation, images: Tensor, rows: Tensor, table: Tensor
) -> Tensor:
    settings = augmentation.settings
    cropped = flip_and_crop_rows(images, rows, table, padding=settings.padding)
    return normalize_and_erase(
        cropped,
        table,
        normalization=augmentation.normalization,
        fill=torch.tensor(settings.erase_fill),
    )


def test_a_table_by_hand():
    one = torch.tensor
    boxes = Boxes(one([1]), one([2]), one([4]), one([3]), one([5]))
    table = create_table(one([True, False]), one([[0, 2], [1, 3]]), boxes)
    assert table.tolist() == [[1, 0, 2, 0, 0, 0, 0], [0, 1, 3, 2, 4, 3, 5]]
    assert create_table(one([False]), one([[1, 1]]), None).tolist() == [[0, 1, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize("padding, fill", [(0, MEAN), (3, (0.0, 0.0, 0.0)), (9, MEAN)])
def test_the_bits_are_those_of_the_augmentation_for_many_seeds(padding, fill):
    cache = random_images(20, 3, 16, 8)
    augmentation = create(padding=padding, erase_fill=fill)
    assert not augmentation.has_policies
    for seed in range(30):
        rows = torch.randint(20, (12,), generator=generator(seed))
        expected = augmentation(cache[rows], generator(seed))
        table = augmentation.draw(12, (16, 8), generator(seed))
        assert torch.equal(finish(augmentation, cache, rows, table), expected)


def test_nothing_is_erased_and_nothing_flipped_when_both_are_off():
    cache, rows = random_images(4, 3, 8, 4), torch.arange(4)
    augmentation = create(flip_prob=0.0, padding=0, erase_prob=0.0)
    table = augmentation.draw(4, (8, 4), generator(1))
    assert table.abs().sum() == 0
    out = finish(augmentation, cache, rows, table)
    assert torch.equal(out, Normalization(MEAN, STD)(cache))


def test_ranks_draw_their_rows_of_the_global_table():
    augmentation = create()
    whole = augmentation.draw(8, (32, 16), generator(4))
    parts = [
        augmentation.draw(4, (32, 16), generator(4), rank=rank, world_size=2) for rank in (0, 1)
    ]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(
    "policy", ["autoaug_prob", "affine_prob", "augmix_prob", "patch_prob", "jitter_prob"]
)
def test_policies_in_front_give_the_bits_of_the_augmentation(policy):
    images, rows = random_images(6, 3, 32, 16), torch.arange(6)
    augmentation = create(padding=2, **{policy: 0.7})
    assert augmentation.has_policies
    for seed in range(3):
        expected = augmentation(images, generator(seed), step=seed)
        prepared, table = augmentation.apply_policies(images, generator(seed), step=seed)
        before = prepared.clone()
        assert torch.equal(finish(augmentation, prepared, rows, table), expected)
        assert torch.equal(prepared, before)
