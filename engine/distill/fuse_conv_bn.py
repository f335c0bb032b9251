"""Batch norms of a network that never changes, folded into the convolutions in front of them."""

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_norms(model: nn.Module) -> int:
    """Fold every batch norm that follows a convolution, and nothing else does, into that convolution, in place.

    With stored statistics a batch norm is a scale and a shift per channel; in the convolution's weights they cost nothing.
    Outputs are equal up to rounding. What follows what is read from a symbolic trace; a network that cannot be traced
    stays as it is.

    Args:
        model: in evaluation mode.

    Returns:
        The number of batch norms that are gone.
    """
    try:
        graph = fx.Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError):
        return 0
    modules = dict(model.named_modules())
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    pairs = [
        (node.args[0], node) for node in graph.nodes if _is_call(node, nn.BatchNorm2d, modules)
    ]
    folded = 0
    for conv, norm in pairs:
        alone = _is_call(conv, nn.Conv2d, modules) and len(conv.users) == 1
        if alone and calls.count(conv.target) == calls.count(norm.target) == 1:
            fused = fuse_conv_bn_eval(modules[conv.target], modules[norm.target])
            model.set_submodule(conv.target, fused.requires_grad_(False))
            model.set_submodule(norm.target, nn.Identity())
            folded += 1
    return folded


def _is_call(node, kind: type[nn.Module], modules: dict[str, nn.Module]) -> bool:
    """Whether a node of the graph calls a module of exactly this kind."""
    return (
        isinstance(node, fx.Node)
        and node.op == "call_module"
        and type(modules[node.target]) is kind
    )
