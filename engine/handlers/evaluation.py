"""Evaluation during and after training."""

import logging
from collections.abc import Callable, Mapping
from functools import partial

import ignite.distributed as idist
import numpy as np
from ember_reid.data.batch import EmbeddingBatch
from ember_reid.data.images import open_image
from ember_reid.data.protocols import SCORING_RULES
from ember_reid.data.records import ALL, CROSS_CAMERA
from ember_reid.engine.evaluator import Benchmark, score
from ember_reid.engine.events import TrainingEvents, epoch_length
from ember_reid.engine.handlers.writers import MetricWriter
from ember_reid.engine.montage import draw_montage
from ember_reid.engine.ranked_lists import ListOptions, ranked_lists
from ember_reid.evaluate import QueryGallery
from ignite.engine import Engine, Events

logger = logging.getLogger("ember.eval")


def draw_random_queries(
    benchmark: Benchmark, embeddings: EmbeddingBatch, *, seed: int, count: int = 4
) -> np.ndarray:
    """Draw `count` random queries with their ten nearest gallery images.

    Returns:
        uint8 [H, W, 3]. The choice of queries depends on the seed only.
    """
    num_query, settings = len(benchmark.query), benchmark.settings
    features = embeddings.embeddings.float().cpu()
    pids, camids = embeddings.pids.cpu(), embeddings.camids.cpu()
    options = ListOptions(
        queries="random",
        count=count,
        metric=settings.metric,
        protocol=ALL if SCORING_RULES[settings.protocol] == ALL else CROSS_CAMERA,
        seed=seed,
    )
    lists = ranked_lists(QueryGallery.split(features, pids, camids, num_query), options)
    montage = draw_montage(
        lists,
        lambda index: open_image(benchmark.query[index].paths[0]),
        lambda index: open_image(benchmark.gallery[index].paths[0]),
    )
    return np.asarray(montage.convert("RGB"))


class Evaluation:
    """Trainer, EPOCH_COMPLETED: scores the benchmarks every `period` epochs and after the last.

    Trainer, STARTED: runs the evaluation that a stopped run missed. Fires `NEW_BEST` on the trainer
    when the criterion is the best so far: the mAP of the first benchmark, or `select`. Re-ranking
    is done after the last epoch only; those scores are kept in `final_results`.

    Args:
        select: iteration -> the criterion that selects the best weights; needed without benchmarks.
        criterion: its name, for the log.
        held_out: the first benchmark contains held-out training identities, not a test set.
        writer: receives the scores and, if it accepts them, ranked lists as images.
        before_last: called before the evaluation after the last epoch.
        seed: for the choice of queries that are drawn.
    """

    def __init__(
        self,
        benchmarks: Mapping[str, Benchmark],
        *,
        period: int,
        held_out: bool,
        writer: MetricWriter,
        before_last: Callable[[], None],
        seed: int,
        select: Callable[[int], float] | None = None,
        criterion: str = "mAP",
    ):
        self.benchmarks, self.period, self.held_out = benchmarks, period, held_out
        self.select, self.criterion = select, criterion
        self.writer, self.before_last, self.seed = writer, before_last, seed
        self.best_score, self.best_epoch, self.evaluated_epoch = -1.0, 0, 0
        self.final_results: dict[str, dict] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=self._is_due), self)
        engine.add_event_handler(Events.STARTED, self.run_if_due)
        if not self.held_out and self.select is None:
            logger.info(
                "best.pt is selected on the test set; TEST.VALIDATION 0.1 holds out training "
                "identities for this instead"
            )

    def _is_due(self, engine: Engine, epoch: int) -> bool:
        return epoch % self.period == 0 or epoch == engine.state.max_epochs

    def run_if_due(self, engine: Engine) -> bool:
        """Evaluate the last complete epoch if that is due and has not been done.

        Returns:
            Whether it was evaluated.
        """
        epoch, iterations_of_next = divmod(engine.state.iteration, epoch_length(engine))
        is_missing = (
            epoch > self.evaluated_epoch and iterations_of_next == 0 and self._is_due(engine, epoch)
        )
        if is_missing:
            self(engine, epoch)
        return is_missing

    def __call__(self, engine: Engine, epoch: int | None = None) -> None:
        epoch = epoch or engine.state.epoch
        is_last = epoch == engine.state.max_epochs
        if is_last:
            self.before_last()
        show = partial(self._show, engine.state.iteration) if self.writer.accepts_images else None
        results = score(self.benchmarks, rerank=is_last, show=show)
        self.final_results = results if is_last else {}
        for name, scores in results.items():
            numbers = {
                key: value for key, value in scores.items() if isinstance(value, (int, float))
            }
            self.writer.write(f"test/{name}", epoch, engine.state.iteration, numbers)
        self.evaluated_epoch = epoch
        if self.select is None:
            chosen_on = next(iter(results))
            found = results[chosen_on]["mAP"]
        else:
            chosen_on, found = "the clusters", self.select(engine.state.iteration)
        if found > self.best_score:
            self.best_score, self.best_epoch = found, epoch
            engine.fire_event(TrainingEvents.NEW_BEST)
        if idist.get_rank() == 0:
            logger.info(
                "best so far: %s %.2f%% after epoch %d, selected on %s",
                self.criterion,
                100 * self.best_score,
                self.best_epoch,
                chosen_on,
            )

    def _show(
        self, iteration: int, name: str, benchmark: Benchmark, embeddings: EmbeddingBatch
    ) -> None:
        try:
            image = draw_random_queries(benchmark, embeddings, seed=self.seed)
        except (OSError, ValueError) as error:
            logger.warning("the ranked lists of %s cannot be drawn: %.200s", name, error)
        else:
            self.writer.write_image(f"ranked/{name}", iteration, image)

    def state_dict(self) -> dict[str, float | int]:
        return {
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "evaluated_epoch": self.evaluated_epoch,
        }

    def load_state_dict(self, state: Mapping[str, float | int]) -> None:
        self.best_score, self.best_epoch = state["best_score"], int(state["best_epoch"])
        self.evaluated_epoch = int(state["evaluated_epoch"])
