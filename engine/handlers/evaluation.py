"""Scores during and after training."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import ignite.distributed as idist
import numpy as np
from ember_reid.data.images import open_image
from ember_reid.data.protocols import scoring_rule
from ember_reid.data.records import ALL, CROSS_CAMERA
from ember_reid.engine.evaluator import Embedded, EmbeddingStore
from ember_reid.engine.ranked_lists import draw_montage, ranked_lists
from ember_reid.engine.scores import ScoreSettings, describe_scores, retrieval_scores
from ignite.engine import Engine, Events

logger = logging.getLogger("ember.eval")


class Benchmark(NamedTuple):
    """A test set, ready to be scored: its loader yields the records of `query`, then those of `gallery`, which has no junk."""

    evaluator: Engine
    store: EmbeddingStore
    loader: Iterable
    query: Sequence
    gallery: Sequence
    settings: ScoreSettings

    def embed(self) -> Embedded:
        """Run the evaluator: the embeddings of all queries and then of the gallery, in order."""
        self.evaluator.run(self.loader)
        return self.store.collect()


def score(
    benchmarks: Mapping[str, Benchmark],
    *,
    rerank: bool = True,
    show: Callable[[str, Benchmark, Embedded], None] = lambda name, benchmark, embedded: None,
) -> dict[str, dict]:
    """{dataset: scores}, the same on every rank; logged on the way. `show` gets to see the embeddings of each."""
    results = {}
    for name, benchmark in benchmarks.items():
        settings = benchmark.settings if rerank else benchmark.settings._replace(rerank=None)
        embedded = benchmark.embed()
        results[name] = retrieval_scores(embedded, len(benchmark.query), settings)
        show(name, benchmark, embedded)
        logger.info("results on %s (%s protocol)", name, settings.protocol)
        for line in describe_scores(results[name]):
            logger.info(line)
    return results


def draw_random_queries(
    benchmark: Benchmark, embedded: Embedded, *, seed: int, count: int = 4
) -> np.ndarray:
    """A picture of random queries and their ten nearest, uint8 [H, W, 3]; the same queries every time."""
    num_query, settings = len(benchmark.query), benchmark.settings
    columns = [
        tensor.float().cpu() if tensor.is_floating_point() else tensor.cpu()
        for tensor in embedded[:3]
    ]
    lists = ranked_lists(
        *(part for column in columns for part in (column[:num_query], column[num_query:])),
        queries="random",
        count=count,
        metric=settings.metric,
        protocol=ALL if scoring_rule(settings.protocol) == ALL else CROSS_CAMERA,
        seed=seed,
    )
    montage = draw_montage(
        lists,
        lambda index: open_image(benchmark.query[index].paths[0]),
        lambda index: open_image(benchmark.gallery[index].paths[0]),
    )
    return np.asarray(montage.convert("RGB"))


class Evaluation:
    """Trainer, EPOCH_COMPLETED: scores the test sets every `period` epochs and at the end; the best one is saved.

    Trainer, STARTED: does what a stopped run left undone between its last iteration and its evaluation. The scores after the
    last epoch, with re-ranking where the recipe asks for it, stay in `final_results`.

    Args:
        held_out: the first of the benchmarks is made of training identities that were held out, not a test set.
        save_best: called with the trainer when the first benchmark's mAP is the best so far.
        record: (what, epoch, iteration, values) for the logs.
        show: (name, benchmark, embedded) for pictures.
        before_last: called before the evaluation of the last epoch.
    """

    def __init__(
        self,
        benchmarks: Mapping[str, Benchmark],
        *,
        period: int,
        held_out: bool,
        save_best: Callable[[Engine], None],
        record: Callable[[str, int, int, dict], None],
        show: Callable[[str, Benchmark, Embedded], None],
        before_last: Callable[[], None],
    ):
        self.benchmarks, self.period, self.save_best = benchmarks, period, save_best
        self.record, self.show, self.before_last = record, show, before_last
        self.held_out = held_out
        self.best_score, self.best_epoch, self.evaluated_epoch = -1.0, 0, 0
        self.final_results: dict[str, dict] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=self._due), self)
        engine.add_event_handler(Events.STARTED, self.catch_up)
        if not self.held_out:
            logger.info(
                "best.pt is chosen on the test set; TEST.VALIDATION 0.1 holds out training identities instead"
            )

    def _due(self, engine: Engine, epoch: int) -> bool:
        return epoch % self.period == 0 or epoch == engine.state.max_epochs

    def catch_up(self, engine: Engine) -> bool:
        """Evaluate the epoch that the trainer has just behind it, if that is due and was not done; whether it was so."""
        epoch, begun = divmod(engine.state.iteration, engine.state.epoch_length)
        owed = epoch > self.evaluated_epoch and not begun and self._due(engine, epoch)
        if owed:
            self(engine, epoch)
        return owed

    def __call__(self, engine: Engine, epoch: int | None = None) -> None:
        epoch = epoch or engine.state.epoch
        is_last = epoch == engine.state.max_epochs
        if is_last:
            self.before_last()
        results = score(self.benchmarks, rerank=is_last, show=self.show)
        self.final_results = results if is_last else {}
        for name, scores in results.items():
            numbers = {
                key: value for key, value in scores.items() if isinstance(value, (int, float))
            }
            self.record(f"test/{name}", epoch, engine.state.iteration, numbers)
        self.evaluated_epoch = epoch
        first = next(iter(results.values()))["mAP"]
        if first > self.best_score:
            self.best_score, self.best_epoch = first, epoch
            self.save_best(engine)
        if idist.get_rank() == 0:
            judge = next(iter(results))
            logger.info(
                "best so far: mAP %.2f%% after epoch %d, chosen on %s",
                100 * self.best_score,
                self.best_epoch,
                judge,
            )

    def state_dict(self) -> dict[str, float | int]:
        return {
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "evaluated_epoch": self.evaluated_epoch,
        }

    def load_state_dict(self, state: Mapping[str, float | int]) -> None:
        self.best_score, self.best_epoch = state["best_score"], int(state["best_epoch"])
        self.evaluated_epoch = int(state["evaluated_epoch"])
