import math

import pytest
import torch
from ember_reid.data.strong_augmentations import (
    AUTO_AUGMENT,
    OPERATIONS,
    aug_mix,
    auto_augment,
    random_affine,
    random_patch,
)
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

POLICIES = [auto_augment, aug_mix, random_patch, random_affine]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(num=8, size=(32, 16)):
    return torch.randint(256, (num, 3, *size), generator=generator(7), dtype=torch.uint8)


@pytest.mark.parametrize("policy", POLICIES)
def test_shape_type_and_input_stay(policy):
    images = pictures()
    before = images.clone()
    out = policy(images, 1.0, generator())
    assert out.shape == images.shape and out.dtype == torch.uint8
    assert torch.equal(images, before)
    assert not torch.equal(out, images)


@pytest.mark.parametrize("policy", POLICIES)
def test_probability_0_changes_nothing_and_seeds_repeat(policy):
    images = pictures()
    assert torch.equal(policy(images, 0.0, generator()), images)
    assert torch.equal(policy(images, 0.7, generator(3)), policy(images, 0.7, generator(3)))


def test_the_table_has_25_pairs_of_known_operations():
    assert len(AUTO_AUGMENT) == 25
    assert {name for pair in AUTO_AUGMENT for name, _, _ in pair} <= set(OPERATIONS)


@pytest.mark.parametrize(
    "name, level, strength",
    [
        ("posterize", 8, 7),
        ("solarize", 5, 128),
        ("rotate", 9, 27.0),
        ("shear_x", 5, 0.15),
        ("color", 0, 0.1),
    ],
)
def test_levels_mean_the_published_strengths(name, level, strength):
    assert OPERATIONS[name].strength(level) == pytest.approx(strength)


def affine(
    image, *, shear=(0.0, 0.0), shift=(0, 0), interpolation=InterpolationMode.BILINEAR, center=None
):
    degrees = [math.degrees(math.atan(slope)) for slope in shear]
    return functional.affine(
        image, 0.0, list(shift), 1.0, degrees, interpolation=interpolation, fill=128, center=center
    )


TORCHVISION = {
    "rotate": lambda image, degrees: functional.rotate(
        image, degrees, interpolation=InterpolationMode.BILINEAR, fill=128
    ),
    "shear_x": lambda image, slope: affine(image, shear=(slope, 0.0), center=[0, 0]),
    "shear_y": lambda image, slope: affine(image, shear=(0.0, slope), center=[0, 0]),
    "shift_x": lambda image, part: affine(
        image, shift=(round(part * image.shape[-1]), 0), interpolation=InterpolationMode.NEAREST
    ),
    "shift_y": lambda image, part: affine(
        image, shift=(0, round(part * image.shape[-2])), interpolation=InterpolationMode.NEAREST
    ),
    "sharpness": functional.adjust_sharpness,
}


@pytest.mark.parametrize("level", [-10, -4, 1, 9])
@pytest.mark.parametrize("name", TORCHVISION)
def test_operations_equal_torchvision(name, level):
    """But for a gray level where both round a half, and without its waiting for a GPU."""
    operation = OPERATIONS[name]
    strength = operation.strength(abs(level))
    if operation.signed:
        strength = math.copysign(strength, level)
    image = torch.randint(256, (3, 33, 16), generator=generator(level + 10), dtype=torch.uint8)
    difference = (
        operation.apply(image, strength).int() - TORCHVISION[name](image, strength).int()
    ).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.02


def test_operations_by_hand():
    image = torch.tensor([0, 100, 200], dtype=torch.uint8).view(1, 1, 3).expand(3, 1, 3)
    assert OPERATIONS["invert"].apply(image, 0)[0, 0].tolist() == [255, 155, 55]
    assert OPERATIONS["solarize"].apply(image, 128)[0, 0].tolist() == [0, 100, 55]
    assert OPERATIONS["posterize"].apply(image, 4)[0, 0].tolist() == [0, 96, 192]
    assert OPERATIONS["shift_x"].apply(image, 1 / 3)[0, 0].tolist() == [128, 0, 100]


def test_random_patch_pastes_a_box_of_another_image_at_its_place():
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 20, 10).contiguous()
    out = random_patch(images, 1.0, generator())
    for i in range(4):
        changed = (out[i, 0] != i).nonzero()
        (top, left), (bottom, right) = changed.amin(0).tolist(), changed.amax(0).tolist()
        box = out[i, :, top : bottom + 1, left : right + 1]
        assert box.unique().numel() == 1 and box.numel() == 3 * len(changed)


def test_one_image_has_no_other_to_take_a_patch_from():
    images = pictures(1)
    assert torch.equal(random_patch(images, 1.0, generator()), images)


def test_affine_without_strength_is_the_identity_and_rotation_turns():
    images = pictures(2, (16, 16))
    still = random_affine(images, 1.0, generator(), degrees=0, scale=(1.0, 1.0), shear=0)
    assert (still.int() - images.int()).abs().max() <= 1
    # A rotation moves a bright spot but keeps its distance from the center, also if H != W.
    spot = torch.zeros(1, 3, 40, 20, dtype=torch.uint8)
    # 7.5 to 8.5 pixels right of the center.
    spot[:, :, 19:21, 17:19] = 255
    turned = random_affine(spot, 1.0, generator(1), degrees=90, scale=(1.0, 1.0), shear=0)[
        0, 0
    ].float()
    y = (turned.sum(1) * (torch.arange(40) + 0.5)).sum() / turned.sum() - 20
    x = (turned.sum(0) * (torch.arange(20) + 0.5)).sum() / turned.sum() - 10
    assert torch.hypot(x, y).item() == pytest.approx(8, abs=0.5)
    assert abs(y.item()) > 1


def test_aug_mix_stays_between_image_and_operations():
    gray = torch.full((4, 3, 16, 8), 128, dtype=torch.uint8)
    out = aug_mix(gray, 1.0, generator(), severity=1.0)
    assert out.float().std() < 60 and out.float().mean() > 40
