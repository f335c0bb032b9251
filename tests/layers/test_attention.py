import pytest
import torch
from ember_reid.layers import BAM, NonLocal, SqueezeExcite


def test_non_local_equals_the_formula_of_the_paper():
    torch.manual_seed(0)
    block = NonLocal(6, width=2).eval()
    torch.nn.init.ones_(block.W[1].weight)
    x = torch.randn(2, 6, 3, 4)
    theta, phi, g = (conv(x).flatten(2) for conv in (block.theta, block.phi, block.g))
    # [N, 12, 12]
    attention = theta.transpose(1, 2) @ phi / 12
    y = (attention @ g.transpose(1, 2)).transpose(1, 2).unflatten(2, (3, 4))
    torch.testing.assert_close(block(x), x + block.W(y))


def test_a_new_non_local_block_is_the_identity_and_has_half_the_channels():
    x = torch.randn(2, 8, 3, 2)
    block = NonLocal(8)
    assert torch.equal(block(x), x)
    assert block.theta.out_channels == 4


def test_squeeze_excite_multiplies_channels_by_their_gate():
    block = SqueezeExcite(32)
    torch.nn.init.zeros_(block.fc2.weight)
    torch.nn.init.constant_(block.fc2.bias, 0.0)
    x = torch.randn(2, 32, 3, 2)
    # sigmoid(0)
    torch.testing.assert_close(block(x), x / 2)


@pytest.mark.parametrize("training", [True, False])
def test_bam_multiplies_by_one_plus_the_gate(training):
    torch.manual_seed(0)
    block = BAM(32).train(training)
    x = torch.rand(4, 32, 6, 3) + 0.1
    ratio = block(x) / x
    assert ratio.min() >= 1 and ratio.max() <= 2
    logits = block.channel(x.mean(dim=(2, 3)))[:, :, None, None] * block.spatial(x)
    torch.testing.assert_close(ratio, 1 + logits.sigmoid())
