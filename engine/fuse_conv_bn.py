"""Batch norms of a frozen network, fused into the preceding convolutions."""

import copy
from collections.abc import Mapping

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# In evaluation mode, these are the same function of the running statistics.
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def fused_copy(model: nn.Module, *, amp_dtype: torch.dtype | None) -> nn.Module:
    """A frozen copy of a network for inference, with fused batch norms in its backbone.

    Args:
        model: a copy is made in its present mode, which should be evaluation.
        amp_dtype: the dtype of autocast, None without it. Convolutions of the backbone are stored
            in it, because autocast would convert frozen weights again in each forward pass.
    """
    fused = copy.deepcopy(model).requires_grad_(False)
    backbone = fused.get_submodule("backbone")
    fuse_conv_bn(backbone)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and amp_dtype is not None:
            module.to(amp_dtype)
    return fused


def fuse_conv_bn(model: nn.Module) -> int:
    """Fuse each batch norm into its convolution, in place.

    With running statistics, a batch norm is a scale and a shift per channel, which the weights of
    the convolution can contain at no cost. Outputs are equal up to rounding. A pair is fused if
    nothing else reads the convolution's output, according to a symbolic trace. A network that
    cannot be traced remains unchanged.

    Args:
        model: in evaluation mode.

    Returns:
        The number of fused batch norms.
    """
    try:
        graph = fx.Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError):
        return 0
    modules = dict(model.named_modules())
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    num_fused = 0
    for norm in [node for node in graph.nodes if _calls(node, _NORMS, modules)]:
        conv = norm.args[0]
        is_pair = _calls(conv, (nn.Conv2d,), modules) and len(conv.users) == 1
        if is_pair and calls.count(conv.target) == calls.count(norm.target) == 1:
            fused = fuse_conv_bn_eval(modules[conv.target], modules[norm.target])
            model.set_submodule(conv.target, fused.requires_grad_(False))
            model.set_submodule(norm.target, nn.Identity())
            num_fused += 1
    return num_fused


def _calls(
    node: object, kinds: tuple[type[nn.Module], ...], modules: Mapping[str, nn.Module]
) -> bool:
    """Whether a node of the graph calls a module of exactly one of these classes."""
    return (
        isinstance(node, fx.Node)
        and node.op == "call_module"
        and type(modules[str(node.target)]) in kinds
    )
