"""torch.compile for the parts of a training step, with a fallback to eager execution."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from ember_reid.engine.handlers.safety import is_out_of_memory
from torch import Tensor

logger = logging.getLogger("ember.train")
Result = TypeVar("Result")

# Steps during which state is backed up. With CUDA graphs, the first step warms up, the second
# records and the third replays.
_PROBATION = 3


class Compilation:
    """Compiles functions; falls back to eager execution, with one warning, when a step fails.

    Args:
        mode: "none" compiles nothing, "default" fuses kernels, "reduce-overhead" also replays them
            as CUDA graphs on a GPU.
        state: tensors that a step changes (batch-norm statistics). They are restored if one of the
            first steps fails.
    """

    def __init__(self, mode: str = "none", *, state: Iterable[Tensor] = ()):
        self.mode, self.enabled = mode, mode != "none"
        self._state = list(state)
        self._steps = 0

    def wrap(self, function: Callable[..., Result]) -> Callable[..., Result]:
        """The function, compiled while `enabled`. Dropout masks are the same as without."""
        if not self.enabled:
            return function
        import torch._inductor

        options = {**torch._inductor.list_mode_options(self.mode), "fallback_random": True}
        compiled = torch.compile(function, options=options, dynamic=False)
        return lambda *args: (compiled if self.enabled else function)(*args)

    def run(self, step: Callable[[], Result], undo: Callable[[], None]) -> Result:
        """Run `step`. If it fails while compiled, call `undo` and run it again without compilation.

        Raises:
            Exception: as raised by the step without compilation; or by the compiled step if memory
                is not sufficient after the first steps.
        """
        if not self.enabled:
            return step()
        self._steps += 1
        if self._steps == 1:
            logger.info("SOLVER.STEP compile: the first iterations take up to two minutes")
        is_probation = self._steps <= _PROBATION
        before = [tensor.clone() for tensor in self._state] if is_probation else self._state
        torch.compiler.cudagraph_mark_step_begin()
        try:
            result = step()
            if self._steps == _PROBATION and self.mode == "reduce-overhead":
                self._report_graphs()
            return result
        except Exception as error:
            # A compiler needs memory itself; later, the step is simply too large.
            if is_out_of_memory(error) and not is_probation:
                raise
            self.enabled = False
            reason = " ".join(str(error).split()) or type(error).__name__
            logger.warning(
                "SOLVER.STEP compile failed, training continues without compilation: %.300s",
                reason,
            )
        for tensor, value in zip(self._state, before, strict=True):
            tensor.copy_(value)
        undo()
        return step()

    def _report_graphs(self) -> None:
        """Log whether the compiler captured everything; torch only warns in a logger of its own."""
        skipped = torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]
        logger.info("SOLVER.STEP compile: %d CUDA graph(s) skipped by the compiler", skipped)
