"""MixStyle (Zhou et al. 2021) after the stages of a backbone; layers/mixstyle.py has formulas."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from ember_reid.layers import MixStyle
from ember_reid.modeling.backbones.base import Backbone
from torch import Tensor, nn

RANDOM, CAMERAS, DATASETS = "random", "cameras", "datasets"


@dataclass(frozen=True)
class MixStyleOptions:
    """The section MODEL.MIXSTYLE.

    Attributes:
        stages: stages that are followed by a layer, counted from 1; empty: no layers.
        prob: the probability that a layer mixes a batch.
        alpha: weights are drawn from Beta(alpha, alpha).
        mix: which images are mixed: any ("random"), those of different cameras ("cameras"), or
            those of different training datasets ("datasets").
    """

    stages: Sequence[int] = ()
    prob: float = 0.5
    alpha: float = 0.1
    mix: str = RANDOM


class StyleMixing(nn.Module):
    """The MixStyle layers of a backbone, which act on the outputs of stages by hooks.

    It has no weights, so that checkpoints do not depend on it.

    Attributes:
        uses_cameras: whether the cameras of the images are an input of the backbone in training.
        domain_by_camera: int64 [cameras], the domain of each camera; None: a camera is a domain.
    """

    def __init__(self, options: MixStyleOptions) -> None:
        super().__init__()
        self.uses_cameras = options.mix != RANDOM
        self.domain_by_camera: Tensor | None
        self.register_buffer("domain_by_camera", None, persistent=False)
        self.layers = nn.ModuleList(
            MixStyle(prob=options.prob, alpha=options.alpha, by_domain=self.uses_cameras)
            for _ in options.stages
        )

    def mixers(self) -> list[MixStyle]:
        """The layers, in the order of the stages."""
        return [cast(MixStyle, layer) for layer in self.layers]

    def take_cameras(self, _backbone: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Forward pre-hook of the backbone: keep the cameras [N], pass on the images."""
        images, *camids = inputs
        domains = camids[0] if camids else None
        if domains is not None and self.domain_by_camera is not None:
            domains = self.domain_by_camera[domains]
        for mixer in self.mixers():
            mixer.domains = domains
        return (images,)


class _Hook:
    """A forward hook that applies a layer to the output of a module."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, _module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return self.layer(output)


def add_style_mixing(backbone: Backbone, options: MixStyleOptions, name: str) -> None:
    """Add MixStyle layers after the stages of a backbone, in place.

    Args:
        options: with at least one stage.
        name: MODEL.BACKBONE.NAME, for messages.

    Raises:
        ValueError: the backbone has no stages, or not so many.
    """
    stages = getattr(backbone, "stage_names", ())
    if not stages:
        raise ValueError(
            "MODEL.MIXSTYLE mixes feature maps after the stages of a convolutional network, and "
            f"{name} has none: set MODEL.MIXSTYLE.STAGES to ()"
        )
    if not set(options.stages) <= set(range(1, len(stages) + 1)):
        raise ValueError(
            f"MODEL.MIXSTYLE.STAGES is {tuple(options.stages)}, but {name} has the stages 1 to "
            f"{len(stages)} here"
        )
    mixing = StyleMixing(options)
    for number, layer in zip(options.stages, mixing.layers, strict=True):
        backbone.get_submodule(stages[int(number) - 1]).register_forward_hook(_Hook(layer))
    if mixing.uses_cameras:
        backbone.register_forward_pre_hook(mixing.take_cameras)
    backbone.mixes_cameras = mixing.uses_cameras
    backbone.style_mixing = mixing


def find_style_mixing(model: nn.Module) -> StyleMixing | None:
    """The MixStyle layers of a ReidModel, perhaps a distributed one."""
    inner = getattr(model, "module", model)
    return getattr(getattr(inner, "backbone", None), "style_mixing", None)


@contextmanager
def mixing_disabled(model: nn.Module) -> Iterator[None]:
    """Do not mix styles inside the block, even in training mode."""
    mixing = find_style_mixing(model)
    mixers = [] if mixing is None else mixing.mixers()
    probs = [mixer.prob for mixer in mixers]
    try:
        for mixer in mixers:
            mixer.prob = 0.0
        yield
    finally:
        for mixer, prob in zip(mixers, probs, strict=True):
            mixer.prob = prob


def set_domains(model: nn.Module, domains: Mapping[int, int]) -> None:
    """Let a model mix the styles of images of different domains.

    Args:
        domains: the domain of each camera.
    """
    mixing = find_style_mixing(model)
    if mixing is not None:
        table = torch.zeros(1 + max(domains), dtype=torch.int64)
        for camid, domain in domains.items():
            table[camid] = domain
        mixing.domain_by_camera = table
