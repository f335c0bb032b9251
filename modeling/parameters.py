"""Which layer of a backbone a parameter belongs to, and which parameters are not weights."""

import re

from ember_reid.modeling.backbones.timm import TimmBackbone
from ember_reid.modeling.jpm import JigsawBackbone
from torch import nn

# Name of a residual block within our backbones. Parameters between two blocks (attention modules,
# transitions) belong to the block before them.
_BLOCK = re.compile(
    r"(layer\d\.\d+|features\.denseblock\d\.denselayer\d+|features\.[1-9]\d*|conv[2-4]\.\d)\."
)


def layer_depths(model: nn.Module) -> dict[str, int]:
    """The depth of each parameter of the backbone, by its name in the model.

    The stem (patch embedding, position embeddings, class token, side information) has depth 0, and
    each residual or transformer block is one layer. Normalizations after the last block have the
    depth of this block. timm's networks have the order that timm defines.

    Raises:
        ValueError: timm does not define the order of the network's layers.
    """
    backbone = model.get_submodule("backbone")
    names = [name for name, _ in backbone.named_parameters()]
    network = timm_network(backbone)
    depths = _depths_by_name(names) if network is None else _timm_depths(network, names)
    return {f"backbone.{name}": depth for name, depth in depths.items()}


def timm_network(backbone: nn.Module) -> nn.Module | None:
    """The network of timm within a backbone; None if there is none."""
    return backbone.network if isinstance(backbone, TimmBackbone | JigsawBackbone) else None


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


def _timm_depths(network: nn.Module, names: list[str]) -> dict[str, int]:
    """The local branch of JPM has the depth of the last block, of which it is a copy."""
    from timm.models import group_parameters

    matcher = getattr(network, "group_matcher", None)
    if matcher is None:
        raise ValueError(
            "SOLVER.LAYER_DECAY needs the order of the layers, which timm does not define for "
            f"{type(network).__name__}; set it to 1"
        )
    inner = group_parameters(network, matcher(coarse=False), reverse=True)
    last = max(depth for name, depth in inner.items() if not _in_timm_head(name))
    depths = {}
    for name in names:
        plain = name.removeprefix("vit.").removeprefix("network.")
        if plain in inner:
            depths[name] = inner[plain]
        else:
            depths[name] = last if name.startswith("local.") else 0
    return {k: v for k, v in depths.items() if not _in_timm_head(k.removeprefix("network."))}


def _in_timm_head(name: str) -> bool:
    """Whether a parameter has the rate of the head, as the norm before ConvNeXt's classifier."""
    return name.startswith("head.")


def embedding_names(model: nn.Module) -> set[str]:
    """Names of position embeddings, class tokens, layer scales and similar parameters of timm.

    These are the parameters that timm excludes from weight decay, and vectors that are neither
    biases nor weights of a normalization. Side information is among them.
    """
    backbone = model.get_submodule("backbone")
    network = timm_network(backbone)
    if network is None:
        return set()
    excluded: set[str] = getattr(network, "no_weight_decay", set)()
    return {
        f"backbone.{name}"
        for name, parameter in backbone.named_parameters()
        if name.removeprefix("vit.").removeprefix("network.") in excluded
        or name.endswith("side.embedding")
        or (parameter.ndim == 1 and name.rpartition(".")[2] not in ("weight", "bias"))
    }
