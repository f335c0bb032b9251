"""torch.compile around the parts of a training step, with the plain ones behind it."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from ember_reid.engine.handlers.safety import is_out_of_memory
from torch import Tensor

logger = logging.getLogger("ember.train")
Result = TypeVar("Result")

_PROBATION = 3  # steps; with CUDA graphs the first warms up, the second records, the third replays


class Compilation:
    """Compiles what it is handed, until a step fails in it; from then on everything runs as it was written, after one line.

    Args:
        mode: "none" compiles nothing, "default" fuses kernels, "reduce-overhead" replays them as CUDA graphs on a GPU.
        state: tensors that a step changes (statistics of batch norms); put back when one of the first steps fails.
    """

    def __init__(self, mode: str = "none", *, state: Iterable[Tensor] = ()):
        self.mode, self.is_on = mode, mode != "none"
        self._state = list(state)
        self._steps = 0

    def wrap(self, function: Callable[..., Result]) -> Callable[..., Result]:
        """The function, compiled as long as that works. Dropout draws what it draws without compilation."""
        if not self.is_on:
            return function
        import torch._inductor

        options = {**torch._inductor.list_mode_options(self.mode), "fallback_random": True}
        compiled = torch.compile(function, options=options, dynamic=False)
        return lambda *args: (compiled if self.is_on else function)(*args)

    def run(self, step: Callable[[], Result], undo: Callable[[], None]) -> Result:
        """step(); where it fails with compiled parts, undo() and step() without them, whose error is then the one to see."""
        if not self.is_on:
            return step()
        self._steps += 1
        if self._steps == 1:
            logger.info(
                "SOLVER.COMPILE %s: the first iterations take up to a minute or two", self.mode
            )
        before = (
            [tensor.clone() for tensor in self._state] if self._steps <= _PROBATION else self._state
        )
        torch.compiler.cudagraph_mark_step_begin()
        try:
            return step()
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self.is_on = False
            reason = " ".join(str(error).split()) or type(error).__name__
            logger.warning(
                "SOLVER.COMPILE %s does not work here, the step goes on uncompiled: %.300s",
                self.mode,
                reason,
            )
        for tensor, value in zip(self._state, before, strict=True):
            tensor.copy_(value)
        undo()
        return step()
