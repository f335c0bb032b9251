"""Which layer of a backbone a parameter belongs to, and which parameters are not weights."""

import re

from ember_reid.modeling.backbones.timm import TimmBackbone
from torch import nn

# Name of a residual block within our backbones. Parameters between two blocks (attention modules,
# transitions) belong to the block before them.
_BLOCK = re.compile(
    r"(layer\d\.\d+|features\.denseblock\d\.denselayer\d+|features\.[1-9]\d*|conv[2-4]\.\d)\."
)


def layer_depths(model: nn.Module) -> dict[str, int]:
    """The depth of each parameter of the backbone, by its name in the model.

    The stem (patch embedding, position embeddings, class token) has depth 0, and each residual or
    transformer block is one layer. Normalizations after the last block have the depth of this
    block. timm's networks have the order that timm defines.

    Raises:
        ValueError: timm does not define the order of the network's layers.
    """
    backbone = model.get_submodule("backbone")
    if isinstance(backbone, TimmBackbone):
        depths = {f"network.{k}": v for k, v in _timm_depths(backbone.network).items()}
    else:
        depths = _depths_by_name([name for name, _ in backbone.named_parameters()])
    return {f"backbone.{name}": depth for name, depth in depths.items()}


def _depths_by_name(names: list[str]) -> dict[str, int]:
    """The branches of MGN are copies of the same blocks, which have equal depths.

    OSNet's layers `pool2` and `pool3` follow the last block of `conv2` and `conv3`.
    """
    depths: dict[str, int] = {}
    depth_by_block = {"": 0}
    block = ""
    for name in names:
        match = _BLOCK.search(re.sub(r"^pool([23])\.", r"conv\1.1.", name))
        block = match[1] if match else block
        depths[name] = depth_by_block.setdefault(block, len(depth_by_block))
    return depths


def _timm_depths(network: nn.Module) -> dict[str, int]:
    from timm.models import group_parameters

    matcher = getattr(network, "group_matcher", None)
    if matcher is None:
        raise ValueError(
            "SOLVER.LAYER_DECAY needs the order of the layers, which timm does not define for "
            f"{type(network).__name__}; set it to 1"
        )
    depths = group_parameters(network, matcher(coarse=False), reverse=True)
    # The norm in front of ConvNeXt's classifier has the rate of the head, as in timm.
    return {name: depth for name, depth in depths.items() if not name.startswith("head.")}


def embedding_names(model: nn.Module) -> set[str]:
    """Names of position embeddings, class tokens, layer scales and similar parameters of timm.

    These are the parameters that timm excludes from weight decay, and vectors that are neither
    biases nor weights of a normalization.
    """
    backbone = model.get_submodule("backbone")
    if not isinstance(backbone, TimmBackbone):
        return set()
    network = backbone.network
    excluded: set[str] = getattr(network, "no_weight_decay", set)()
    names = {
        name
        for name, parameter in network.named_parameters()
        if name in excluded
        or (parameter.ndim == 1 and name.rpartition(".")[2] not in ("weight", "bias"))
    }
    return {f"backbone.network.{name}" for name in names}
