"""Center loss. B: images, D: dimension of the embedding."""

import torch
from ember_reid.layers.numerics import as_float
from torch import Tensor, nn


class CenterLoss(nn.Module):
    """Mean squared distance of each feature to the learned center of its identity.

    Wen et al. 2016, eq. 2, without the factor 1/2, as in the strong baseline. The centers are
    parameters. The baseline trains them with a separate SGD optimizer, after dividing their
    gradient by the weight of this loss.
    """

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(num_classes, dim))

    def forward(self, features: Tensor, pids: Tensor) -> Tensor:
        """The loss of features [B, D] with class indices pids [B].

        Raises:
            ValueError: the features and the centers have different dimensions.
        """
        if features.shape[1] != self.centers.shape[1]:
            raise ValueError(
                f"centers have {self.centers.shape[1]} dimensions, features {features.shape[1]}"
            )
        return (as_float(features) - self.centers[pids]).square().sum(dim=1).mean()
