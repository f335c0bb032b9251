import pytest
import torch
from ember_reid.data.augment import (
    Augmentation,
    Boxes,
    draw_boxes,
    draw_jitter,
    erase_,
    flip_and_crop,
    jitter_colors,
)
from ember_reid.data.augment_settings import AugmentationSettings
from ember_reid.data.dataset import Normalization
from ember_reid.data.strong_augmentations import decayed_probs
from torchvision.transforms.v2 import functional

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random_images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def create(**settings):
    off = {"flip_prob": 0.0, "padding": 0, "erase_prob": 0.0, "jitter_prob": 0.0}
    return Augmentation(Normalization(MEAN, STD), AugmentationSettings(**{**off, **settings}))


def test_normalization_equals_torchvision():
    images = random_images(2, 3, 5, 4)
    expected = functional.normalize(images.float() / 255, list(MEAN), list(STD))
    torch.testing.assert_close(Normalization(MEAN, STD)(images), expected)
    with pytest.raises(ValueError, match="std must be positive"):
        Normalization(MEAN, (1, 1, 0))


def test_without_augmentation_only_normalization_is_applied():
    images = random_images(4, 2, 3, 6, 5)
    before = images.clone()
    out = create()(images, torch.Generator())
    assert torch.equal(out, Normalization(MEAN, STD)(images)) and torch.equal(images, before)
    create(flip_prob=1.0, padding=2, erase_prob=1.0)(images, torch.Generator())
    assert torch.equal(images, before)


def test_flip_and_crop_equals_a_loop():
    images = random_images(6, 3, 7, 5)
    flips = torch.tensor([True, False, True, False, False, True])
    offsets = torch.tensor([[0, 0], [4, 4], [2, 2], [1, 3], [0, 4], [3, 1]])
    out = flip_and_crop(images, flips, offsets, padding=2)
    for i in range(6):
        expected = functional.horizontal_flip(images[i]) if flips[i] else images[i]
        down, right = offsets[i].tolist()
        expected = functional.pad(expected, [2, 2])[:, down : down + 7, right : right + 5]
        assert torch.equal(out[i], expected)


def test_every_image_and_frame_has_its_own_draw():
    images = random_images(1, 1, 3, 16, 8).expand(8, 4, 3, 16, 8)
    out = create(padding=4)(images, torch.Generator().manual_seed(0)).flatten(0, 1)
    different = {tuple(image.flatten().tolist()) for image in out}
    # Of 32 images, with 81 possible offsets.
    assert len(different) > 20
    flipped = create(flip_prob=0.5)(images, torch.Generator().manual_seed(0)).flatten(0, 1)
    assert len({tuple(image.flatten().tolist()) for image in flipped}) == 2


def test_same_generator_state_same_result():
    images = random_images(5, 3, 32, 16)
    augmentation = create(flip_prob=0.5, padding=3, erase_prob=0.5, jitter_prob=0.5)
    torch.manual_seed(0)
    first = augmentation(images, torch.Generator().manual_seed(7))
    torch.manual_seed(1)
    assert torch.equal(augmentation(images, torch.Generator().manual_seed(7)), first)
    assert not torch.equal(augmentation(images, torch.Generator().manual_seed(8)), first)


def test_boxes_keep_area_and_aspect():
    boxes = draw_boxes(2000, (64, 32), 0.5, torch.Generator().manual_seed(0))
    height, width = (boxes.bottom - boxes.top).double(), (boxes.right - boxes.left).double()
    assert 0.45 < len(boxes.image) / 2000 < 0.55
    assert height.max() < 64 and width.max() < 32
    assert (
        boxes.top.min() == 0
        and boxes.bottom.max() == 64
        and boxes.left.min() == 0
        and boxes.right.max() == 32
    )
    area = height * width / (64 * 32)
    assert 0.015 < area.min() and area.max() < 0.42
    # Rounding to pixels has little effect there.
    large = area > 0.1
    aspect = (height / width)[large]
    assert 0.27 < aspect.min() and aspect.max() < 3.6


def test_the_aspect_of_erased_boxes_is_uniform_between_its_limits():
    generator = torch.Generator().manual_seed(0)
    boxes = draw_boxes(4000, (400, 400), 1.0, generator, aspect=(0.7, 1.4))
    aspect = (boxes.bottom - boxes.top).double() / (boxes.right - boxes.left)
    # Rounding to pixels moves the aspect of boxes of at least 47 pixels by about 2 %.
    assert 0.68 < aspect.min() < 0.72 and 1.37 < aspect.max() < 1.43
    assert abs(aspect.mean() - 1.05) < 0.01


@pytest.mark.parametrize("fill", [(0.0, 0.0, 0.0), MEAN])
def test_erased_pixels_have_the_fill_value(fill):
    images = random_images(8, 3, 32, 16)
    out = create(erase_prob=1.0, erase_fill=fill)(images, torch.Generator().manual_seed(0))
    changed = (out != Normalization(MEAN, STD)(images)).any(dim=1)
    assert 0.02 < changed.float().mean() < 0.4
    for image, mask in zip(out, changed, strict=True):
        rows, columns = mask.any(dim=1).sum(), mask.any(dim=0).sum()
        # One rectangle.
        assert mask.sum() == rows * columns > 0
        assert torch.equal(image[:, mask], torch.tensor(fill)[:, None].expand(3, int(mask.sum())))


def test_erase_by_hand():
    images = torch.ones(2, 3, 4, 4)
    one = torch.tensor
    erase_(images, Boxes(one([1]), one([0]), one([2]), one([1]), one([4])), (0.0, 5.0, 0.0))
    assert images[0].min() == 1
    assert images[1, 1].tolist() == [[1, 5, 5, 5], [1, 5, 5, 5], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_jitter_equals_torchvision_image_by_image():
    images = random_images(6, 3, 9, 7).float() / 255
    # Gray, without a hue.
    images[0] = 0.3
    factors = draw_jitter(6, (0.4, 0.4, 0.4, 0.3), torch.Generator().manual_seed(2))
    out = jitter_colors(images, factors)
    for image, result, (brightness, contrast, saturation, hue) in zip(
        images, out, factors.tolist(), strict=True
    ):
        expected = functional.adjust_brightness(image, brightness)
        expected = functional.adjust_contrast(expected, contrast)
        expected = functional.adjust_saturation(expected, saturation)
        expected = functional.adjust_hue(expected, hue)
        torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)


def test_jitter_draws_stay_in_range():
    factors = draw_jitter(500, (0.2, 0.3, 2.0, 0.1), torch.Generator().manual_seed(0))
    low, high = factors.amin(dim=0), factors.amax(dim=0)
    assert torch.all(low >= torch.tensor([0.8, 0.7, 0.0, -0.1])) and low[2] == 0
    assert torch.all(high <= torch.tensor([1.2, 1.3, 3.0, 0.1]))


def test_jitter_probability():
    images = random_images(200, 3, 4, 4)
    out = create(jitter_prob=0.3)(images, torch.Generator().manual_seed(0))
    same = torch.isclose(out, Normalization(MEAN, STD)(images), atol=1e-5).flatten(1).all(dim=1)
    assert 0.6 < same.float().mean() < 0.8


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_take_their_rows_of_the_global_draws(world_size):
    augment = create(flip_prob=0.5, padding=3, erase_prob=0.5, jitter_prob=0.5)
    # Clips of two frames.
    images = random_images(8, 2, 3, 24, 12)
    whole = augment(images, torch.Generator().manual_seed(5))
    shares = [
        augment(share, torch.Generator().manual_seed(5), rank=rank, world_size=world_size)
        for rank, share in enumerate(images.chunk(world_size))
    ]
    assert torch.equal(torch.cat(shares), whole)


def test_policies_draw_apart_on_each_rank():
    augment = create(flip_prob=0.0, padding=0, erase_prob=0.0, affine_prob=0.5)
    images = random_images(1, 3, 24, 12).expand(16, 3, 24, 12)
    draws = [
        augment(images, torch.Generator().manual_seed(5), rank=rank, world_size=2)
        for rank in (0, 1)
    ]
    assert not torch.equal(*draws)


def test_decayed_probabilities():
    assert decayed_probs(0.5, 4, 0, 4).tolist() == [0.5, 0.375, 0.28125, 0.2109375]
    assert decayed_probs(0.5, 4, 2, 2).tolist() == [0.28125, 0.2109375]
    # FastReID's May program: total 18,000 in each of 8 processes, 18,000 iterations of 64 images.
    probs = decayed_probs(1.0, 18_000 * 8, 0, 18_000 * 64)
    assert probs.mean().item() == pytest.approx(0.125, abs=1e-3)


def test_decay_is_the_expectation_of_a_running_count():
    # FastReID: augment if u > g; every time it does, g = min(1, g + 1 / T).
    runs, images, total = 4000, 12, 5
    draws = torch.rand(runs, images, generator=torch.Generator().manual_seed(0))
    used = torch.zeros(images)
    for run in draws:
        gate = 0.0
        for n, u in enumerate(run.tolist()):
            if u > gate:
                used[n] += 1
                gate = min(1.0, gate + 1 / total)
    expected = decayed_probs(1.0, total, 0, images).float()
    torch.testing.assert_close(used / runs, expected, atol=0.03, rtol=0)


def test_auto_augment_decays_over_the_global_batches():
    images = random_images(4, 3, 16, 8)
    plain = create()(images, torch.Generator().manual_seed(0))
    # With a decay of 1 only image 0 of step 0 has a probability above 0.
    augmentation = create(autoaug_prob=1.0, autoaug_decay=1)
    changed = set()
    for seed in range(5):
        out = augmentation(images, torch.Generator().manual_seed(seed))
        changed |= {i for i in range(4) if not torch.equal(out[i], plain[i])}
    assert changed == {0}
    for where in ({"step": 1}, {"rank": 1, "world_size": 2}):
        assert torch.equal(augmentation(images, torch.Generator().manual_seed(0), **where), plain)
    # An endless decay equals a constant probability.
    constant = create(autoaug_prob=0.5)(images, torch.Generator().manual_seed(1))
    endless = create(autoaug_prob=0.5, autoaug_decay=10**15)
    assert torch.equal(endless(images, torch.Generator().manual_seed(1), step=3), constant)
