"""The output of every model. B: images or clips, D: dimension of the embedding, C: identities."""

from typing import NamedTuple

from torch import Tensor


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
