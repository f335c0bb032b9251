"""`last.pt`, `previous.pt` and `best.pt`: everything a run needs to go on, or to be tested, in one file."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ignite.distributed as idist
import torch
from ember_reid.engine.checkpoint import LAST, PREVIOUS, load_last, save_checkpoint
from ignite.engine import Engine, Events
from torch import nn

logger = logging.getLogger("ember.train")


class Checkpoints:
    """Trainer, EPOCH_COMPLETED: writes `last.pt` every `period` epochs and at the end; rank 0 writes.

    The `last.pt` before that one stays as `previous.pt`, and is what --resume takes where `last.pt` cannot be read.

    Args:
        folder: OUTPUT_DIR/checkpoints.
        description: what never changes during a run: configuration, classes, preprocessing; plain values only.
        average: the model that is evaluated, the file's "model"; where it is not the trained one (a running average of it),
            the trained one is there as "trained".
        parts: named objects with state_dict and load_state_dict.
        before_saving: called first, for example the check that losses are finite.
    """

    def __init__(
        self,
        folder: Path,
        *,
        description: Mapping[str, object],
        model: nn.Module,
        average: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        parts: Mapping[str, object],
        period: int = 1,
        before_saving: Callable[[], None] = lambda: None,
    ):
        self.folder, self.description, self.period = folder, dict(description), period
        self.model, self.average = model, average
        self.optimizers, self.parts = list(optimizers), dict(parts)
        self.before_saving = before_saving

    def attach(self, engine: Engine) -> None:
        def due(engine: Engine, epoch: int) -> bool:
            return epoch % self.period == 0 or epoch == engine.state.max_epochs

        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=due), self.save, "last")

    def save(self, engine: Engine, name: str = "last") -> None:
        """Write `<name>.pt` with the state after the trainer's last complete iteration."""
        self.before_saving()
        if idist.get_rank() == 0:
            path = self.folder / f"{name}.pt"
            previous = self.folder / PREVIOUS if path.name == LAST else None
            save_checkpoint(path, self.content(engine), previous=previous)

    def content(self, engine: Engine) -> dict:
        state = engine.state
        return {
            **self.description,
            "model": self.average.state_dict(),
            **({"trained": self.model.state_dict()} if self.average is not self.model else {}),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            **{name: part.state_dict() for name, part in self.parts.items()},
            "progress": {"iteration": state.iteration, "epoch_length": state.epoch_length},
        }

    def restore(self) -> dict[str, int]:
        """Load `last.pt` into all parts; returns its progress {iteration, epoch_length}.

        Raises:
            FileNotFoundError: nothing to resume from.
            ValueError: the file belongs to another model or another set of optimizers.
        """
        path, content = load_last(self.folder)
        try:
            self.average.load_state_dict(content["model"])
            self.model.load_state_dict(content.get("trained", content["model"]))
            if len(content["optimizers"]) != len(self.optimizers):
                raise ValueError(
                    f"{len(content['optimizers'])} optimizers, this run has {len(self.optimizers)}"
                )
            for optimizer, state in zip(self.optimizers, content["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            for part_name, part in self.parts.items():
                part.load_state_dict(content[part_name])
            return content["progress"]
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:400]
            raise ValueError(
                f"--resume: {path} was written by another configuration: {reason}"
            ) from error


def resume_engine(engine: Engine, progress: Mapping[str, int], loader, *, max_epochs: int) -> None:
    """Set the trainer and its loader to where the checkpoint was written: the same epoch, the batch after the last one.

    Where the number of iterations in an epoch changed (another batch size or other data), a begun epoch starts anew.

    Raises:
        ValueError: the checkpoint is beyond `max_epochs`.
    """
    epochs, batches = divmod(progress["iteration"], progress["epoch_length"])
    if epochs + (batches > 0) > max_epochs:
        raise ValueError(
            f"--resume: the checkpoint is in epoch {epochs + (batches > 0)}, SOLVER.MAX_EPOCHS is {max_epochs}; raise it"
        )
    if progress["epoch_length"] != len(loader) and batches:
        logger.warning(
            "the epoch has another length than before: the begun epoch %d starts anew", epochs + 1
        )
        batches = 0
    loader.batch_sampler.set_epoch(epochs + 1)
    loader.batch_sampler.skip(batches)
    iteration = epochs * len(loader) + batches
    engine.load_state_dict(
        {"iteration": iteration, "epoch_length": len(loader), "max_epochs": max_epochs}
    )
