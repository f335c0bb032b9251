import pytest
import torch
from ember_reid.layers import POOLINGS, GeMPool, create_pooling
from ember_reid.modeling.backbones.resnet import IBNa

MAPS = torch.tensor([1.0, 2.0, 3.0, 6.0]).view(1, 1, 2, 2)


@pytest.mark.parametrize("name, expected", [("avg", 3.0), ("max", 6.0), ("avgmax", 9.0)])
def test_poolings_by_hand(name, expected):
    assert create_pooling(name)(MAPS).tolist() == [[expected]]


def test_gem_lies_between_mean_and_maximum():
    assert GeMPool(1.0)(MAPS).item() == pytest.approx(3.0)
    assert GeMPool(2.0)(MAPS).item() == pytest.approx((50 / 4) ** 0.5)
    assert GeMPool(50.0)(MAPS / 6).item() == pytest.approx(1.0, abs=0.03)


def test_only_a_learnable_gem_has_a_parameter_but_both_save_p():
    learnable, fixed = (
        create_pooling("gem", gem_learnable=True),
        create_pooling("gem", gem_learnable=False),
    )
    learnable(MAPS).sum().backward()
    assert learnable.p.grad.abs().item() > 0
    assert list(learnable.state_dict()) == list(fixed.state_dict()) == ["p"]
    assert not list(fixed.parameters())
    assert torch.equal(learnable(MAPS), fixed(MAPS))


@pytest.mark.parametrize("name", POOLINGS)
def test_half_precision_maps_are_pooled_in_float32(name):
    vectors = create_pooling(name)(torch.ones(2, 3, 4, 2, dtype=torch.bfloat16))
    assert vectors.shape == (2, 3) and vectors.dtype == torch.float32


def test_gem_of_zeros_has_finite_gradients():
    maps = torch.zeros(1, 2, 3, 3, requires_grad=True)
    pool = GeMPool()
    pool(maps).sum().backward()
    assert torch.isfinite(maps.grad).all() and torch.isfinite(pool.p.grad).all()


def test_an_unknown_pooling_lists_the_choices():
    with pytest.raises(ValueError, match="pooling is 'mean'; choose one of avg, max, avgmax, gem"):
        create_pooling("mean")


def test_ibn_a_normalizes_half_by_image_and_half_by_batch():
    layer = IBNa(5).eval()
    maps = torch.stack([torch.zeros(5, 2, 2), torch.ones(5, 2, 2)]) + torch.arange(4.0).view(2, 2)
    out = layer(maps)
    assert layer.num_instance_channels == 2
    # Instance norm removes the offset.
    torch.testing.assert_close(out[0, :2], out[1, :2])
    # Running statistics keep it.
    torch.testing.assert_close(out[1, 2:] - out[0, 2:], torch.ones(3, 2, 2))
