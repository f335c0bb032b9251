"""The output of every model. B: images or clips, D: dimension of the embedding, C: identities."""

from typing import NamedTuple, Protocol

from torch import Tensor, nn


class ReidOutput(NamedTuple):
    """The tensors of one forward pass. A tuple is empty if the model does not have such tensors.

    Attributes:
        embedding: [B, D], compared in retrieval.
        logits: [B, C] per classifier, without margin; those of cosine classifiers are scaled.
        features: [B, D_i] per metric feature, compared by the triplet, circle and center losses.
        maps: [B * T, C_i, H_i, W_i] per stage of the backbone, where T is the number of frames of a
            clip (1 for images); only if `return_maps` of the model is True.
    """

    embedding: Tensor
    logits: tuple[Tensor, ...] = ()
    features: tuple[Tensor, ...] = ()
    maps: tuple[Tensor, ...] = ()


def uses_cameras(model: nn.Module) -> bool:
    """Whether the camera of each image is an input of a ReidModel, perhaps a distributed one."""
    inner = getattr(model, "module", model)
    return getattr(getattr(inner, "backbone", None), "uses_cameras", False)


class HasCameras(Protocol):
    """A batch with the camera of each image, [B]."""

    @property
    def camids(self) -> Tensor: ...


def side_inputs(model: nn.Module, batch: HasCameras) -> tuple[Tensor, ...]:
    """The inputs of a model besides the images: the cameras [B], if it uses them."""
    if not uses_cameras(model):
        return ()
    return (batch.camids.to(next(model.parameters()).device, non_blocking=True),)
