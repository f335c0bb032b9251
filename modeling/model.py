"""A re-identification network: a backbone and a head.

B: images or clips, T: frames of a clip, D: width of an embedding, C: identities.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from ember_reid.layers import create_pooling
from ember_reid.layers.numerics import as_float, no_autocast
from ember_reid.modeling.backbones.vit import side_index
from ember_reid.modeling.output import ReidOutput
from torch import Tensor, nn


@dataclass(frozen=True)
class HeadOptions:
    """Settings of the head: MODEL.POOL, MODEL.HEAD and TEST.NECK_FEAT.

    Attributes:
        pool: one of layers.POOLINGS.
        gem_p, gem_learnable: exponent of the pooling "gem", and whether it is trained.
        embedding_dim: dimension D after a reduction of the pooled vector; 0: no reduction.
        reduction: "linear" (without bias), or "bn_relu": linear, batch norm, ReLU.
        neck: "bnneck", with a classifier without bias, or "none".
        classifier: "linear" or "cosine".
        scale: of the cosine classifier.
        metric_feature: the feature of the metric losses, "before" or "after" the neck.
        embedding: the feature of retrieval, "before" or "after" the neck.
        tokens: what the maps contain; see Backbone.
        num_parts: number of local features of a head that has some.
    """

    pool: str = "avg"
    gem_p: float = 3.0
    gem_learnable: bool = True
    embedding_dim: int = 0
    reduction: str = "linear"
    neck: str = "bnneck"
    classifier: str = "linear"
    scale: float = 64.0
    metric_feature: str = "before"
    embedding: str = "after"
    tokens: str = "patches"
    num_parts: int = 4


class LinearClassifier(nn.Linear):
    """Logits W x (+ b).

    Without bias, the weights have the initialization N(0, 0.001^2) of the strong baseline; with
    bias, that of torch.
    """

    def __init__(self, dim: int, num_classes: int, *, bias: bool = False) -> None:
        super().__init__(dim, num_classes, bias=bias)
        if not bias:
            nn.init.normal_(self.weight, std=0.001)


class CosineClassifier(nn.Module):
    """Logits scale * cos(x, w_c), with weights from N(0, 0.01^2).

    The loss applies margins: see layers.apply_margin.
    """

    def __init__(self, dim: int, num_classes: int, *, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, dim))
        nn.init.normal_(self.weight, std=0.01)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))


def create_neck(dim: int) -> nn.BatchNorm1d:
    """BNNeck: a batch norm without trainable bias (Luo et al. 2019, section 3.5)."""
    neck = nn.BatchNorm1d(dim)
    neck.bias.requires_grad_(False)
    return neck


def create_reduction(in_channels: int, options: HeadOptions) -> nn.Sequential:
    """The reduction [B, in_channels] -> [B, D]; an empty Sequential if there is none."""
    if not options.embedding_dim:
        return nn.Sequential()
    linear = nn.Linear(in_channels, options.embedding_dim, bias=False)
    nn.init.kaiming_normal_(linear.weight, mode="fan_out")
    if options.reduction == "linear":
        return nn.Sequential(linear)
    return nn.Sequential(linear, nn.BatchNorm1d(options.embedding_dim), nn.ReLU())


class GlobalHead(nn.Module):
    """Pooling, optional reduction, neck and classifier over the last feature map.

    Everything after the backbone is computed in float32, because features in half precision would
    change the ranking.

    Args:
        in_channels: channels of the last feature map.
        num_classes: number of identities C.
        options: settings.

    Attributes:
        dim: dimension D of the embedding.
    """

    def __init__(self, in_channels: int, num_classes: int, options: HeadOptions) -> None:
        super().__init__()
        self.tokens = options.tokens
        if self.tokens == "class+patches":
            in_channels *= 2
        self.dim = options.embedding_dim or in_channels
        self.metric_feature = options.metric_feature
        self.embedding = options.embedding
        self.pool: nn.Module = nn.Identity()
        if self.tokens != "class":
            self.pool = create_pooling(
                options.pool, gem_p=options.gem_p, gem_learnable=options.gem_learnable
            )
        self.reduction = create_reduction(in_channels, options)
        has_neck = options.neck == "bnneck"
        self.neck = create_neck(self.dim) if has_neck else nn.Identity()
        if options.classifier == "cosine":
            self.classifier: nn.Module = CosineClassifier(
                self.dim, num_classes, scale=options.scale
            )
        else:
            self.classifier = LinearClassifier(self.dim, num_classes, bias=not has_neck)

    def _pool(self, maps: tuple[Tensor, ...]) -> Tensor:
        """[B, in_channels]: the pooled map, the class token, or the class token and the map."""
        if self.tokens == "patches":
            return self.pool(as_float(maps[-1]))
        class_token = as_float(maps[-1]).flatten(1)
        if self.tokens == "class":
            return class_token
        return torch.cat([class_token, self.pool(as_float(maps[-2]))], dim=1)

    def forward(self, maps: tuple[Tensor, ...]) -> ReidOutput:
        """The output for the last feature map maps[-1], [B, in_channels, H, W].

        With class tokens, it is the class token [B, in_channels, 1, 1]; maps[-2] are the patches.
        """
        with no_autocast(maps[-1]):
            # [B, in_channels] -> [B, D]
            before = self.reduction(self._pool(maps))
            after = self.neck(before)
            features = {"before": before, "after": after}
            return ReidOutput(
                embedding=features[self.embedding],
                logits=(self.classifier(after),),
                features=(features[self.metric_feature],),
            )


def _frame_mean(values: tuple[Tensor, ...], num_frames: int) -> tuple[Tensor, ...]:
    # [B * T, D] -> [B, T, D] -> [B, D]
    return tuple(v.unflatten(0, (-1, num_frames)).mean(dim=1) for v in values)


class ReidModel(nn.Module):
    """Maps images or clips to a ReidOutput, in training as well as in evaluation.

    The frames of a clip pass through backbone and head as separate images, so batch norm sees B * T
    images. Their embeddings, features and logits are then averaged, as in VKD (Porrello et al.
    2020).

    Attributes:
        backbone: image [N, 3, H, W] -> stage maps, a tuple of [N, C_i, H_i, W_i].
        head: stage maps -> ReidOutput.
        return_maps: if True, the output contains the stage maps.
        architecture: values of the configuration keys ARCHITECTURE_KEYS, which do not show in names
            or shapes of the weights. load_weights compares them with those of the weight file.
        missing_weights: tensors of the backbone that keep random values, because the file of
            pretrained weights lacks them (MODEL.BACKBONE.PARTIAL).
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.return_maps = False
        self.architecture: dict[str, Any] = {}
        self.missing_weights: tuple[str, ...] = ()

    def forward(self, images: Tensor, sides: Tensor | None = None) -> ReidOutput:
        """The output for normalized float images [B, 3, H, W] or clips [B, T, 3, H, W].

        Args:
            images: see above.
            sides: [B], from side_inputs, if the backbone uses cameras.

        Raises:
            ValueError: `images` has another number of dimensions.
        """
        if images.dim() not in (4, 5):
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected [B, 3, H, W] or [B, T, 3, H, W]"
            )
        is_clip = images.dim() == 5
        frames = images.flatten(0, 1) if is_clip else images
        if sides is None:
            maps = self.backbone(frames)
        else:
            maps = self.backbone(
                frames, sides.repeat_interleave(images.shape[1]) if is_clip else sides
            )
        output = self.head(maps)
        if is_clip:
            num_frames = images.shape[1]
            output = ReidOutput(
                embedding=_frame_mean((output.embedding,), num_frames)[0],
                logits=_frame_mean(output.logits, num_frames),
                features=_frame_mean(output.features, num_frames),
            )
        return output._replace(maps=tuple(maps)) if self.return_maps else output


def uses_cameras(model: nn.Module) -> bool:
    """Whether the camera of each image is an input of a ReidModel, perhaps a distributed one."""
    inner = getattr(model, "module", model)
    return getattr(getattr(inner, "backbone", None), "uses_cameras", False)


class HasSides(Protocol):
    """A batch with the camera of each image, [B], and perhaps its viewpoint."""

    @property
    def camids(self) -> Tensor: ...

    @property
    def viewids(self) -> Tensor | None: ...


def side_inputs(model: nn.Module, batch: HasSides) -> tuple[Tensor, ...]:
    """The inputs of a model besides the images: its side information [B], if it uses some.

    Styles of different cameras are mixed in training only; then these are the cameras.
    """
    backbone: Any = getattr(getattr(model, "module", model), "backbone", None)
    mixes_cameras = model.training and getattr(backbone, "mixes_cameras", False)
    if not (uses_cameras(model) or mixes_cameras):
        return ()
    sides = side_index(batch.camids, batch.viewids, getattr(backbone, "num_views", 0))
    return (sides.to(next(model.parameters()).device, non_blocking=True),)
