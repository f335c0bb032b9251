"""Muon: orthogonal updates for the weights of convolutions (Jordan et al. 2024)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

# Coefficients of the quintic iteration, and its number of steps: those of the authors' program.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_NUM_STEPS = 5
_EPSILON = 1e-7


def is_muon_weight(module: nn.Module, name: str) -> bool:
    """Whether the parameter `name` of `module` is trained by Muon.

    These are the weights of convolutions that connect all channels and have no bias: in our
    networks, a batch norm follows them, so only the direction of the weights matters.
    """
    return (
        isinstance(module, nn.Conv2d)
        and name == "weight"
        and module.bias is None
        and module.groups == 1
    )


def orthogonalize(matrix: Tensor) -> Tensor:
    """Approximate U V^T for a matrix [M, N] = U S V^T: singular values become 0.7 to 1.2.

    The Newton-Schulz iteration of Muon, X <- (a + b A + c A^2) X with A = X X^T. It is computed
    from products of the small matrices A, and X is multiplied by their product once at the end:
    for a 256 x 2304 matrix, this takes a third of the operations. Singular values below 1e-3 of the
    largest one stay smaller than 0.7.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (x.norm() + _EPSILON)
    a, b, c = _COEFFICIENTS
    gram = x @ x.T
    product = torch.eye(len(gram), dtype=x.dtype, device=x.device)
    for _ in range(_NUM_STEPS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return x.T if is_tall else x


class Muon(Optimizer):
    """Muon for the groups with `muon` True, AdamW for the others.

    A weight w of Muon changes by lr * |w| in each step, in the direction of the orthogonalized
    momentum (with Nesterov's correction), and then gets its initial norm again, as in Jordan's
    training program for CIFAR-10. The learning rate is therefore a relative change, and there is
    no weight decay.

    Args:
        groups: parameter groups {"params", "lr", "weight_decay", "muon"}.
        lr: learning rate of groups without one.
        momentum: of Muon.
        fused: use AdamW's fused kernels.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float = 0.0,
        momentum: float = 0.9,
        fused: bool = False,
    ) -> None:
        super().__init__(groups, {"lr": lr, "muon": False})
        self.momentum = momentum
        self._adamw = self._create_adamw(fused)
        self.register_load_state_dict_post_hook(lambda optimizer: self._connect())

    def _create_adamw(self, fused: bool) -> AdamW | None:
        """AdamW for the groups of this optimizer that are not Muon's; it adds its settings."""
        groups = self._others()
        if not groups:
            return None
        adamw = AdamW(groups, lr=0.0, fused=fused)
        adamw.state = self.state
        return adamw

    def _others(self) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if not group["muon"]]

    def _connect(self) -> None:
        """Let AdamW use the loaded groups and state."""
        if self._adamw is not None:
            self._adamw.param_groups, self._adamw.state = self._others(), self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient.

        Raises:
            ValueError: there is a closure, which this optimizer does not support.
        """
        if closure is not None:
            raise ValueError("Muon does not support closures")
        for group in self.param_groups:
            for weight in group["params"] if group["muon"] else ():
                if weight.grad is not None:
                    self._update(weight, weight.grad, lr=group["lr"])
        if self._adamw is not None:
            self._adamw.step()

    def _update(self, weight: Tensor, gradient: Tensor, *, lr: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
            state["norm"] = weight.norm()
        average = state["momentum_buffer"].mul_(self.momentum).add_(gradient)
        direction = torch.add(gradient, average, alpha=self.momentum)
        # [out, in, H, W] -> [out, in * H * W]
        update = orthogonalize(direction.flatten(1)).reshape(weight.shape)
        weight.sub_(update * (lr * state["norm"] / (update.norm() + _EPSILON)))
        weight.mul_(state["norm"] / weight.norm())
