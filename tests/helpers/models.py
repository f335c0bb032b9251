"""Models for tests, built from overrides of the default configuration, with random weights."""

import torch
from ember_reid.config import load_config
from ember_reid.modeling import BACKBONES, ReidModel, build_model

NAMES = tuple(name for name in BACKBONES if not name.startswith("tiny"))


def overrides(name: str, **more: object) -> list[str]:
    """Overrides for a backbone; `more` contains keys with "__" instead of "."."""
    words = ["MODEL.BACKBONE.NAME", name, "MODEL.BACKBONE.WEIGHTS", "none"]
    for key, value in more.items():
        words += [key.replace("__", "."), str(value)]
    return words


def build(
    name: str = "resnet18", *, num_classes: int = 5, device: str = "cpu", **more: object
) -> ReidModel:
    """Builds a model; on the device "meta" its tensors have shapes but no values."""
    cfg = load_config(None, overrides(name, **more))
    with torch.device(device):
        return build_model(cfg, num_classes=num_classes)


def fill(model: ReidModel) -> ReidModel:
    """Moves a model from the device "meta" to the CPU.

    Weights are uniform, norms as initialized, and exponents of poolings 3.
    """
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() > 1:
                tensor.uniform_(-1, 1).mul_((6 / tensor[0].numel()) ** 0.5)
            else:
                tensor.fill_(3 if name.endswith(".p") else name.endswith(("weight", "running_var")))
    return model


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Sets random parameters and batch-norm statistics that keep activations in a normal range."""
    rng = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith(("running_var", ".p")):
            tensor.copy_(torch.rand(tensor.shape, generator=rng) + 0.5)
        elif tensor.dim() == 1:
            tensor.copy_(
                0.1 * torch.randn(tensor.shape, generator=rng)
                + (0.5 if name.endswith("weight") else 0)
            )
        else:
            tensor.copy_(torch.randn(tensor.shape, generator=rng) * (2 / tensor[0].numel()) ** 0.5)
