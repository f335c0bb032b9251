"""MixStyle against a slow loop, and the distribution of partners."""

import copy

import pytest
import torch
from ember_reid.layers import MixStyle, draw_partners, mix_styles


def mix_slowly(maps, weights, partners, eps):
    """The authors' computation, channel by channel, with the divisor H * W - 1."""
    mixed = torch.empty_like(maps)
    for image in range(len(maps)):
        for channel in range(maps.shape[1]):
            styles = []
            for index in (image, int(partners[image])):
                values = maps[index, channel].flatten().tolist()
                mean = sum(values) / len(values)
                var = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
                styles.append((mean, (var + eps) ** 0.5))
            (mean, std), (other_mean, other_std) = styles
            w = float(weights[image])
            normed = (maps[image, channel] - mean) / std
            mixed_std = w * std + (1 - w) * other_std
            mixed[image, channel] = normed * mixed_std + w * mean + (1 - w) * other_mean
    return mixed


def test_mixed_styles_equal_a_slow_loop():
    rng = torch.Generator().manual_seed(0)
    maps = torch.randn(5, 3, 4, 2, generator=rng, dtype=torch.float64) * 3 + 1
    weights = torch.tensor([0.0, 1.0, 0.25, 0.5, 0.9], dtype=torch.float64)
    partners = torch.tensor([3, 0, 4, 3, 1])
    mixed = mix_styles(maps, weights, partners)
    assert torch.allclose(mixed, mix_slowly(maps, weights, partners, 1e-6), atol=1e-12)
    # A weight of 1, and an image that is its own partner.
    assert torch.allclose(mixed[[1, 3]], maps[[1, 3]])


def test_a_style_that_can_be_computed_by_hand():
    # Means 2 and 10, standard deviations sqrt(2) and 2 sqrt(2).
    maps = torch.tensor([[1.0, 3.0], [8.0, 12.0]], dtype=torch.float64).view(2, 1, 1, 2)
    mixed = mix_styles(maps, torch.tensor([0.5, 0.5]), torch.tensor([1, 0]), eps=0.0)
    # Both get the mean 6 and the standard deviation 1.5 sqrt(2).
    assert mixed.flatten().tolist() == pytest.approx([4.5, 7.5, 4.5, 7.5])


def test_no_gradient_flows_through_the_statistics():
    maps = torch.randn(2, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    mix_styles(maps, torch.zeros(2), torch.tensor([1, 0]), eps=0.0)[0].sum().backward()
    std = maps.detach().std(dim=(2, 3))
    # Each value has the gradient std_partner / std; the partner has none.
    assert torch.allclose(maps.grad[0], (std[1] / std[0]).expand(1, 2, 2))
    assert maps.grad[1].abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_are_computed_in_float32(dtype):
    maps = torch.randn(4, 2, 8, 4) * 50 + 1000
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = mix_styles(maps.to(dtype), torch.full((4,), 0.3), torch.tensor([1, 2, 3, 0]))
    exact = mix_styles(maps.to(dtype).float(), torch.full((4,), 0.3), torch.tensor([1, 2, 3, 0]))
    assert mixed.dtype == dtype and torch.equal(mixed, exact.to(dtype))


def test_partners_are_a_permutation_and_of_other_domains():
    torch.manual_seed(0)
    domains = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1])
    seen = {index: set() for index in range(8)}
    for _ in range(200):
        partners = draw_partners(8, domains=domains)
        assert sorted(partners.tolist()) == list(range(8))
        assert (domains[partners] != domains).all()
        for index, partner in enumerate(partners.tolist()):
            seen[index].add(partner)
    # Every image of the other domain is drawn.
    assert all(len(partners) == 4 for partners in seen.values())
    without = torch.stack([draw_partners(8) for _ in range(200)])
    assert (without.sort(dim=1).values == torch.arange(8)).all()
    assert all(len(set(column.tolist())) == 8 for column in without.T)


@pytest.mark.parametrize("sizes, num_equal", [((3, 3, 3), 0), ((1, 2, 3, 1), 0), ((5, 1, 1), 3)])
def test_partners_for_domains_of_any_size(sizes, num_equal):
    domains = torch.repeat_interleave(torch.arange(len(sizes)) * 7, torch.tensor(sizes))
    domains = domains[torch.randperm(len(domains))]
    for _ in range(20):
        partners = draw_partners(len(domains), domains=domains)
        assert sorted(partners.tolist()) == list(range(len(domains)))
        # Five of seven images: at least three of them have partners of their own domain.
        assert (domains[partners] == domains).sum() == num_equal


def test_the_layer_mixes_in_training_with_its_probability_only():
    maps = torch.randn(6, 2, 4, 4)
    layer = MixStyle(prob=0.5, alpha=0.1)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    outputs = [layer(maps) for _ in range(200)]
    assert 70 < sum(torch.equal(output, maps) for output in outputs) < 130
    torch.set_rng_state(state)
    assert all(torch.equal(copy.deepcopy(layer)(maps), output) for output in outputs)
    assert layer.eval()(maps) is maps
    assert torch.equal(MixStyle(prob=0.0, alpha=0.1)(maps), maps)
