"""Events of the trainer in addition to ignite's own."""

from ignite.engine import EventEnum


class TrainingEvents(EventEnum):
    """Fired on the trainer; handlers use them to act without knowing each other.

    BACKWARD_COMPLETED: gradients are unscaled and may be changed; the optimizer step follows.
    NEW_BEST: an evaluation gave the best score so far.
    BEFORE_SAVING: a checkpoint is about to be written; a handler may raise to prevent it.
    """

    BACKWARD_COMPLETED = "backward_completed"
    NEW_BEST = "new_best"
    BEFORE_SAVING = "before_saving"
