"""Any network of timm, an optional package: `timm:<name>`. N: images."""

from typing import Any

import torch
from ember_reid.modeling.backbones.base import Backbone
from ember_reid.modeling.backbones.options import BackboneOptions, keep_supported
from torch import Tensor, nn

PREFIX = "timm:"


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


def create_timm_network(name: str, image_size: tuple[int, int], *, pretrained: bool) -> nn.Module:
    """Creates a timm model without pooling and classifier.

    Args:
        name: name of the model, without "timm:".
        image_size: (height, width) of the images; models that need it resample their position
            embeddings.
        pretrained: download timm's weights.

    Raises:
        ValueError: timm is not installed or has no such model.
    """
    timm = import_timm()
    if not name.startswith("hf-hub:") and not timm.is_model(name.split(".")[0]):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:8]
        raise ValueError(f"timm has no model {name!r}; similar names: {', '.join(near) or 'none'}")
    arguments: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0, "global_pool": ""}
    try:
        return timm.create_model(name, img_size=image_size, **arguments)
    # Convolutional models have no argument for the image size.
    except TypeError:
        return timm.create_model(name, **arguments)


class TimmBackbone(Backbone):
    """Image [N, 3, H, W] -> one map [N, C, h, w]. Class and register tokens are dropped."""

    def __init__(self, network: nn.Module, image_size: tuple[int, int], name: str) -> None:
        super().__init__()
        self.network = network
        self.image_size = image_size
        self.num_prefix_tokens = getattr(network, "num_prefix_tokens", 0)
        with torch.no_grad():
            try:
                out = network.eval()(torch.zeros(1, 3, *image_size))
            except (AssertionError, RuntimeError, ValueError) as error:
                height, width = image_size
                raise ValueError(
                    f"{PREFIX}{name} does not support {height} x {width} images: {error}"
                ) from error
        network.train()
        features = network.num_features
        self.layout = (
            "tokens" if out.dim() == 3 else "last" if out.shape[-1] == features else "first"
        )
        if out.dim() == 4 and out.shape[1] == features:
            self.layout = "first"
        self.channels = (out.shape[1] if self.layout == "first" else out.shape[-1],)
        self.num_tokens = out.shape[1] - self.num_prefix_tokens if out.dim() == 3 else 0

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        out = self.network(images)
        if self.layout == "last":
            # [N, h, w, C] -> [N, C, h, w]
            out = out.permute(0, 3, 1, 2)
        elif self.layout == "tokens":
            # [N, h * w, C]
            tokens = out[:, self.num_prefix_tokens :]
            # Sizes are tensors while the model is traced.
            height, width, num_patches = map(int, (*images.shape[2:], tokens.shape[1]))
            rows = max(round(height / (height * width / num_patches) ** 0.5), 1)
            out = tokens.transpose(1, 2).unflatten(2, (rows, -1))
        return (out,)


def create_timm(name: str, options: BackboneOptions) -> TimmBackbone:
    """Creates the backbone `timm:<name>`; its only setting is the image size."""
    options = keep_supported(name, options)
    plain = name.removeprefix(PREFIX)
    network = create_timm_network(plain, options.image_size, pretrained=False)
    return TimmBackbone(network, options.image_size, plain)
