"""What every model returns. B: images or clips, D: width of the embedding, C: identities."""

from typing import NamedTuple

from torch import Tensor


class ReidOutput(NamedTuple):
    """The tensors of one forward pass; a tuple is empty where a model has nothing to say.

    Attributes:
        embedding: [B, D], what retrieval compares.
        logits: [B, C] per classifier, without margin, already scaled for cosine classifiers.
        features: [B, D_i] per metric feature, what triplet, circle and center losses compare.
        maps: [B * T, C_i, H_i, W_i] per stage of the backbone (T frames of a clip, else 1); only when the
            model's `return_maps` is True.
    """

    embedding: Tensor
    logits: tuple[Tensor, ...] = ()
    features: tuple[Tensor, ...] = ()
    maps: tuple[Tensor, ...] = ()
