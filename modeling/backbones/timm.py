"""Any network of timm, an optional package: `timm:<name>`. N: images."""

from typing import Any

import torch
from ember_reid.modeling.backbones.options import BackboneOptions, refuse_others
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


def create_timm_network(
    name: str, image_size: tuple[int, int], *, pretrained: bool, file: str = ""
) -> nn.Module:
    """timm's network without pooling and classifier, made for images of (height, width) where it matters.

    Args:
        name: timm's, without "timm:".
        image_size: transformers with a table of positions resample it to this size.
        pretrained: load timm's weights for it, from `file` when given, else downloaded.
    """
    timm = import_timm()
    if not timm.is_model(name.split(".")[0]):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:8]
        raise ValueError(f"timm has no network {name!r}; near it: {', '.join(near) or 'none'}")
    arguments: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0, "global_pool": ""}
    if file:
        arguments["pretrained_cfg_overlay"] = {"file": file}
    try:
        return timm.create_model(name, img_size=image_size, **arguments)
    except TypeError:  # convolutional networks take any size and have no such argument
        return timm.create_model(name, **arguments)


class TimmBackbone(nn.Module):
    """Image [N, 3, H, W] -> one map [N, C, h, w]; tokens of a transformer are put back into their grid.

    Class and register tokens are left out: every pooling sees patches only.
    """

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
                    f"{PREFIX}{name} does not take {height} x {width} images: {error}"
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
            out = out.permute(0, 3, 1, 2)  # [N, h, w, C] -> [N, C, h, w]
        elif self.layout == "tokens":
            tokens = out[:, self.num_prefix_tokens :]  # [N, h * w, C]
            height, width, num_patches = map(
                int, (*images.shape[2:], tokens.shape[1])
            )  # tensors when traced
            rows = max(round(height / (height * width / num_patches) ** 0.5), 1)
            out = tokens.transpose(1, 2).unflatten(2, (rows, -1))
        return (out,)


def create_timm(name: str, options: BackboneOptions) -> TimmBackbone:
    """The backbone `timm:<name>`; it has no options but the image size."""
    refuse_others(name, options)
    plain = name.removeprefix(PREFIX)
    network = create_timm_network(plain, options.image_size, pretrained=False)
    return TimmBackbone(network, options.image_size, plain)
