"""Warm-up, capture and replay of a step, and the fallback to eager execution."""

import gc
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from ember_reid.data.batch import Batch, Selection
from ember_reid.engine.events import StepOutput, TrainingEvents
from ember_reid.engine.graph.gradients import FlatGradients
from ember_reid.engine.graph.step import StaticStep
from ignite.engine import Engine

logger = logging.getLogger("ember.train")

# Steps that run eagerly in front of a capture. They are ordinary steps of the training: optimizers
# create their state, cudnn selects its algorithms, and the gradient scaler is initialized.
NUM_WARMUP_STEPS = 3

Function = Callable[[], None]


class Backend(Protocol):
    """Executes functions eagerly, and captures them."""

    def run(self, function: Function) -> None:
        """Execute the function eagerly, where it will be captured."""

    def capture(self, function: Function) -> Function:
        """Record the function without executing it; returns what replays it."""

    def recover(self) -> None:
        """Return to a state in which functions can be executed, after a failed capture."""


class CudaBackend:
    """CUDA graphs, which share one memory pool.

    Captures use a stream of their own. Other threads (writers of checkpoints, loaders) may continue
    to use the device meanwhile.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, function: Function) -> None:
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            function()
        current.wait_stream(self._stream)

    def capture(self, function: Function) -> Function:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            function()
        return graph.replay

    def recover(self) -> None:
        torch.cuda.synchronize(self.device)
        gc.collect()
        torch.cuda.empty_cache()


class Rehearsal:
    """Stands in for CUDA graphs on other devices: a replay calls the function."""

    def run(self, function: Function) -> None:
        function()

    def capture(self, function: Function) -> Function:
        return function

    def recover(self) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class Segment:
    """A part of a step; `is_captured` is False for what must run between two graphs."""

    function: Function
    is_captured: bool = True


class GraphRunner:
    """Executes a step: eagerly at first, then captured, then replayed.

    Each key has its own graphs: what the host decides (which parts are frozen) is fixed in them. If
    a capture fails, one warning is logged, and all steps run eagerly from then on, with the same
    result.

    Args:
        segments: executed in this order.
        prepare: called in front of each execution.
        undo: called after a failed capture.

    Attributes:
        backend: executes and captures the segments.
        num_graphs: captured so far.
        num_replays: steps that were replayed.
        failure: why steps run eagerly; empty as long as they are captured.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        backend: Backend,
        *,
        prepare: Function,
        undo: Function,
    ) -> None:
        self._segments, self.backend = list(segments), backend
        self._prepare, self._undo = prepare, undo
        self._num_steps: dict[Hashable, int] = {}
        self._replays: dict[Hashable, list[Function]] = {}
        self.num_graphs, self.num_replays, self.failure = 0, 0, ""

    def __call__(self, key: Hashable) -> None:
        """Execute one step in the state that `key` describes."""
        replays = self._replays.get(key) or self._capture_if_due(key)
        self._prepare()
        if replays is None:
            for segment in self._segments:
                self.backend.run(segment.function)
            return
        self.num_replays += 1
        for replay in replays:
            replay()

    def _capture_if_due(self, key: Hashable) -> list[Function] | None:
        """The graphs of a key after its warm-up; None as long as steps run eagerly."""
        count = self._num_steps[key] = self._num_steps.get(key, 0) + 1
        if self.failure or count <= NUM_WARMUP_STEPS:
            return None
        try:
            replays = [
                self.backend.capture(segment.function) if segment.is_captured else segment.function
                for segment in self._segments
            ]
        except Exception as error:
            self.failure = " ".join(str(error).split()) or type(error).__name__
        else:
            self._replays[key] = replays
            self.num_graphs += sum(segment.is_captured for segment in self._segments)
            logger.info("SOLVER.STEP graph: the step is captured; %d graph(s)", self.num_graphs)
            return replays
        self._undo()
        self.backend.recover()
        logger.warning(
            "SOLVER.STEP graph: the step cannot be captured, training continues eagerly: %.300s",
            self.failure,
        )
        return None


class CapturedStep:
    """The process function of a trainer whose steps are captured and replayed.

    Attributes:
        static: the step.
        runner: executes its device part; has the number of graphs and the reason of a failure.
    """

    def __init__(self, static: StaticStep, backend: Backend, *, world_size: int) -> None:
        self.static = static
        self._engine: Engine | None = None
        self._iteration = 0
        self._modules = list(static.parts.model.modules())
        if world_size == 1:
            segments = [Segment(self._compute_and_update)]
        else:
            gradients = FlatGradients(
                [*static.parts.model.parameters(), *static.parts.criterion.parameters()],
                world_size=world_size,
            )
            segments = self._segments_around_all_reduce(gradients)
        self.runner = GraphRunner(
            segments,
            backend,
            prepare=lambda: static.seed(self._iteration),
            undo=static.undo_capture,
        )

    def __call__(self, engine: Engine, batch: Batch | Selection) -> StepOutput:
        self._engine, self._iteration = engine, engine.state.iteration
        self.static.fill(self._iteration, batch)
        self.runner(self._key())
        return self.static.output(self._iteration)

    def _key(self) -> Hashable:
        """What a graph fixes: which modules are in training mode. Frozen parts are not."""
        return tuple([module.training for module in self._modules])

    def _compute_and_update(self) -> None:
        self.static.compute()
        self.static.update(self._fire_backward_completed)

    def _fire_backward_completed(self) -> None:
        cast(Engine, self._engine).fire_event(TrainingEvents.BACKWARD_COMPLETED)

    def _segments_around_all_reduce(self, gradients: FlatGradients) -> list[Segment]:
        def compute() -> None:
            self.static.compute()
            gradients.pack()

        def update() -> None:
            gradients.divide()
            self.static.update(self._fire_backward_completed)

        return [
            Segment(compute),
            Segment(gradients.all_reduce, is_captured=False),
            Segment(update),
        ]
