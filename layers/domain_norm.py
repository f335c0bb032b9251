"""Batch norms with separate statistics and parameters for labeled and unlabeled images.

Chang et al., Domain-Specific Batch Normalization for Unsupervised Domain Adaptation, CVPR 2019, as
SpCL and MMT use it.
"""

import copy

import torch
from torch import Tensor, nn


class _DomainNorm:
    """A batch norm whose training batches have labeled images in their first half.

    The batch norm itself is that of the unlabeled images, and the only one in evaluation. The other
    one is not a submodule, so the state of the network is that of an ordinary one.
    """

    training: bool
    labeled: list[nn.Module]

    def forward(self, images: Tensor) -> Tensor:
        """[B, ...] -> [B, ...]."""
        if not self.training:
            return super().forward(images)  # type: ignore[misc]
        first, second = images.chunk(2)
        return torch.cat((self.labeled[0](first), super().forward(second)))  # type: ignore[misc]


class DomainBatchNorm1d(_DomainNorm, nn.BatchNorm1d):
    """Of vectors [B, D]."""


class DomainBatchNorm2d(_DomainNorm, nn.BatchNorm2d):
    """Of maps [B, C, H, W]."""


_DOMAIN_NORMS: dict[type, type] = {
    nn.BatchNorm1d: DomainBatchNorm1d,
    nn.BatchNorm2d: DomainBatchNorm2d,
}


def separate_norms(model: nn.Module) -> nn.ModuleList:
    """Give every batch norm of a model a copy of itself for labeled images, in place.

    Returns:
        The batch norms of labeled images; their parameters have to be trained and saved, too.
    """
    copies = []
    for module in model.modules():
        if type(module) in _DOMAIN_NORMS:
            labeled = copy.deepcopy(module).train()
            module.__class__ = _DOMAIN_NORMS[type(module)]
            # In a list, it is not registered as a submodule.
            module.labeled = [labeled]  # type: ignore[assignment]
            copies.append(labeled)
    return nn.ModuleList(copies)
