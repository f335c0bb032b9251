"""Any network of timm, an optional package: `timm:<name>`. N: images."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ember_reid.modeling.backbones.base import Backbone
from ember_reid.modeling.backbones.options import BackboneOptions, keep_supported
from ember_reid.modeling.backbones.patches import check_patches, has_class_token, overlap_patches
from torch import Tensor, nn

PREFIX = "timm:"

logger = logging.getLogger("ember.train")


def import_timm() -> Any:
    """The package timm.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            'backbones timm:<name> need the package timm: pip install "timm>=1.0.31,<2"'
        ) from error
    return timm


def create_timm_network(
    name: str,
    image_size: tuple[int, int] | None,
    *,
    pretrained: bool,
    arguments: Mapping[str, Any] | None = None,
    drop_path: float = 0.0,
) -> nn.Module:
    """Create a timm model without pooling and classifier.

    Args:
        name: name of the model, without "timm:".
        image_size: (height, width) of the images, for models that need it; None: as published.
        pretrained: download timm's weights.
        arguments: more arguments for the model's constructor.
        drop_path: see BackboneOptions; ignored by models without it.

    Raises:
        ValueError: timm is not installed or has no such model, or `arguments` do not fit.
    """
    timm = import_timm()
    if not name.startswith("hf-hub:") and not timm.is_model(name.split(".")[0]):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:8]
        raise ValueError(f"timm has no model {name!r}; similar names: {', '.join(near) or 'none'}")
    common = {"pretrained": pretrained, "num_classes": 0, "global_pool": "", **(arguments or {})}
    # Convolutional models have no argument for the image size, some have no stochastic depth.
    drop = {"drop_path_rate": drop_path} if drop_path else {}
    size = {"img_size": image_size} if image_size else {}
    attempts: list[dict[str, Any]] = [size | drop, drop]
    attempts += [size, {}] if drop else []
    reason = ""
    for optional in attempts:
        try:
            network = timm.create_model(name, **optional, **common)
        except TypeError as error:
            reason = reason or str(error)
            continue
        # huggingface_hub raises these without a network, and for unknown names.
        except (OSError, RuntimeError) as error:
            if not name.startswith("hf-hub:"):
                raise
            first = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ValueError(
                f"cannot read {name} from the Hugging Face hub ({first}); without a network, set "
                "MODEL.BACKBONE.NAME to timm:<architecture> and MODEL.BACKBONE.WEIGHTS to its file"
            ) from error
        _slice_before_stem(network)
        if drop and "drop_path_rate" not in optional:
            logger.info("%s%s has no MODEL.BACKBONE.DROP_PATH (now 0)", PREFIX, name)
        return network
    raise ValueError(f"MODEL.BACKBONE.ARGS {dict(arguments or {})} do not fit {name}: {reason}")


def _slice_before_stem(network: nn.Module) -> None:
    """Replace the strides of 1x1 convolutions of images, which FastViT has, by slicing.

    The result is the same. torch 2.15 (oneDNN) corrupts memory in their backward pass on a CPU
    without AVX-512, if the images are in channels-last format.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d) or module.in_channels != 3:
            continue
        if module.kernel_size == (1, 1) and module.stride != (1, 1):
            rows, columns = module.stride
            module.stride = (1, 1)
            module.register_forward_pre_hook(
                lambda _, inputs, r=rows, c=columns: (inputs[0][:, :, ::r, ::c],)
            )


class TimmBackbone(Backbone):
    """Image [N, 3, H, W] -> the last map [N, C, h, w] and perhaps the class token [N, C, 1, 1].

    Register tokens are dropped, unless the head uses part tokens, which follow the class token.

    Args:
        network: of timm.
        options: `tokens`, `grad_checkpoint` and `image_size` are used.
        name: for messages.
    """

    def __init__(self, network: nn.Module, options: BackboneOptions, name: str) -> None:
        super().__init__()
        self.network = network
        self.arguments, self.image_size = options.arguments, options.image_size
        self.grad_checkpoint = options.grad_checkpoint
        has_class = has_class_token(network)
        self.num_prefix_tokens = getattr(network, "num_prefix_tokens", int(has_class))
        out = _probe(network, options.image_size, name)
        is_tokens, features = out.dim() == 3, network.num_features
        last = out.shape[-1] == features and out.shape[1] != features
        self.layout = "tokens" if is_tokens else "last" if last else "first"
        dim = out.shape[1] if self.layout == "first" else out.shape[-1]
        self.num_tokens = out.shape[1] - self.num_prefix_tokens if is_tokens else 0
        self.num_rows = _count_rows(network, options.image_size, self.num_tokens)
        self.tokens = _choose_tokens(options.tokens, has_class and is_tokens, name)
        if self.tokens == "class+parts" and self.num_prefix_tokens == 1:
            self.tokens = "class"
        num_single = self.num_prefix_tokens if self.tokens == "class+parts" else 1
        self.channels = (dim,) if self.tokens == "patches" else (dim,) * (1 + num_single)
        if self.grad_checkpoint:
            _set_checkpointing(network, True, name)

    def train(self, mode: bool = True) -> "TimmBackbone":
        """Activations are recomputed in training only."""
        super().train(mode)
        if self.grad_checkpoint:
            _set_checkpointing(self.network, mode)
        return self

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The last modules at each stride from 4 on, if their outputs are maps [N, C, h, w]."""
        if self.layout != "first":
            return ()
        names = {
            info["reduction"]: f"network.{info['module']}"
            for info in getattr(self.network, "feature_info", ())
            if info["reduction"] >= 4
        }
        found = tuple(names[stride] for stride in sorted(names))
        known = dict(self.named_modules())
        if not set(found) <= set(known):
            return ()
        return found if _give_maps([known[name] for name in found], self) else ()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.split(self.network(images))

    def split(self, out: Tensor) -> tuple[Tensor, ...]:
        """The output of the network as maps."""
        if self.layout == "last":
            # [N, h, w, C] -> [N, C, h, w]
            out = out.permute(0, 3, 1, 2)
        if self.layout != "tokens":
            return (out,)
        # [N, h * w, C] -> [N, C, h, w]
        patches = out[:, self.num_prefix_tokens :]
        maps = patches.transpose(1, 2).unflatten(2, (self.num_rows, -1))
        # [N, C, 1, 1]
        if self.tokens == "patches":
            return (maps,)
        return (maps, *(out[:, i, :, None, None] for i in range(len(self.channels) - 1)))


def _probe(network: nn.Module, image_size: tuple[int, int], name: str) -> Tensor:
    """The output for one image."""
    height, width = image_size
    try:
        with torch.no_grad():
            return network.eval()(torch.zeros(1, 3, height, width))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(f"{name} does not support {height} x {width} images: {error}") from error
    finally:
        network.train()


def _give_maps(modules: Sequence[nn.Module], backbone: TimmBackbone) -> bool:
    """Whether each module outputs one tensor with four dimensions, once per forward pass."""
    outputs: list[object] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        for module in modules
    ]
    try:
        _probe(backbone.network, backbone.image_size, "")
    finally:
        for hook in hooks:
            hook.remove()
    are_maps = [isinstance(output, Tensor) and output.dim() == 4 for output in outputs]
    return all(are_maps) and len(outputs) == len(modules)


def _count_rows(network: nn.Module, image_size: tuple[int, int], num_tokens: int) -> int:
    """The height of the grid of patches."""
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    if grid and grid[0] * grid[1] == num_tokens:
        return grid[0]
    height, width = image_size
    return max(round(height * (num_tokens / (height * width)) ** 0.5), 1)


def _choose_tokens(tokens: str, has_class: bool, name: str) -> str:
    """The value of MODEL.HEAD.TOKENS that the network supports; a change is logged."""
    if tokens == "auto":
        return "class" if has_class else "patches"
    if has_class or tokens == "patches":
        return tokens
    if torch.get_default_device().type != "meta":
        logger.info("%s has no class token: MODEL.HEAD.TOKENS is now patches", name)
    return "patches"


def _set_checkpointing(network: Any, enable: bool, name: str = "") -> None:
    try:
        network.set_grad_checkpointing(enable)
    except (AssertionError, AttributeError) as error:
        raise ValueError(
            f"timm has no gradient checkpointing for {name}; set "
            "MODEL.BACKBONE.GRAD_CHECKPOINT to False"
        ) from error


def create_timm(name: str, options: BackboneOptions) -> TimmBackbone:
    """Create the backbone `timm:<name>`.

    Raises:
        ValueError: an unknown name, or settings that the network does not support.
    """
    from ember_reid.modeling.backbones.vit import is_vision_transformer

    network = create_timm_network(
        name.removeprefix(PREFIX),
        options.image_size,
        pretrained=False,
        arguments=options.arguments,
        drop_path=options.drop_path,
    )
    supported = ["arguments", "drop_path"]
    supported += ["patch_stride"] if is_vision_transformer(network) else []
    supported += ["freeze_patch_embed"] if hasattr(network, "patch_embed") else []
    return wrap_network(network, keep_supported(name, options, *supported), name)


def wrap_network(network: nn.Module, options: BackboneOptions, name: str) -> TimmBackbone:
    """The backbone of a network of timm, which is changed as `options` say.

    Args:
        network: of timm.
        options: with those settings only that the network supports.
        name: MODEL.BACKBONE.NAME, for messages.

    Raises:
        ValueError: an image size that the patch size does not divide, or side information without
            a plain vision transformer.
    """
    from ember_reid.modeling.backbones.vit import ViTBackbone, is_vision_transformer

    check_patches(network, options.image_size, stride=options.patch_stride, name=name)
    if options.patch_stride:
        overlap_patches(network, options.patch_stride)
    if options.freeze_patch_embed:
        network.get_submodule("patch_embed").requires_grad_(False)
    if is_vision_transformer(network):
        return ViTBackbone(network, options, name)
    if options.side.num_cameras:
        raise ValueError(
            "MODEL.SIE adds camera embeddings to the tokens of a plain vision transformer; "
            f"{name} is none: set MODEL.SIE.CAMERAS to 0"
        )
    return TimmBackbone(network, options, name)
