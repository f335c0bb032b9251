"""Scores on the test sets of training datasets, and on those of other ("cross-domain") ones."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

CROSS_DOMAIN_FILE = "cross_domain.json"
SAME, CROSS = "same", "cross"
METRICS = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10")
COLUMNS = ("mAP", "Rank-1", "mINP")


def mean_scores(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over test sets, each of which has the same weight."""
    rows = list(rows)
    return {name: mean(row[name] for row in rows) for name in METRICS}


def compare_domains(
    results: Mapping[str, Mapping[str, Any]],
    *,
    trained_on: Sequence[str],
    same_domain: Sequence[str],
) -> dict[str, Any]:
    """The content of `cross_domain.json`: the domain of each test set, and the mean of the others.

    Args:
        results: the content of `results.json`.
        trained_on: the training datasets.
        same_domain: the test sets that belong to one of them.

    Returns:
        {"trained_on": [...], "tests": {name: {"domain": "same" or "cross", "mAP": ..., ...}},
        "mean": {"mAP": ..., ...}}; empty if there is no cross-domain test set.
    """
    others = [name for name in results if name not in same_domain]
    if not others:
        return {}
    tests = {
        name: {
            "domain": CROSS if name in others else SAME,
            **{metric: scores[metric] for metric in METRICS},
        }
        for name, scores in results.items()
    }
    mean_of_others = mean_scores(results[name] for name in others)
    return {"trained_on": list(trained_on), "tests": tests, "mean": mean_of_others}


def describe_transfer(
    results: Mapping[str, Mapping[str, Any]],
    *,
    trained_on: Sequence[str],
    same_domain: Sequence[str],
) -> list[str]:
    """Lines of a table of all test sets; no lines for the test set of a training dataset alone."""
    comparison = compare_domains(results, trained_on=trained_on, same_domain=same_domain)
    if len(results) < 2 and not comparison:
        return []
    rows = [(name, "", results[name]) for name in results]
    if comparison:
        rows = [(name, row["domain"], row) for name, row in comparison["tests"].items()]
        rows.append(("mean", CROSS, comparison["mean"]))
    return [f"trained on {', '.join(trained_on)}", *format_scores(rows, title="tested on")]


def format_scores(rows: Sequence[tuple[str, str, Mapping[str, float]]], *, title: str) -> list[str]:
    """Lines of a table with mAP, Rank-1 and mINP.

    Args:
        rows: name, domain and scores of each row; an empty domain for all rows: no such column.
        title: of the first column.
    """
    has_domains = any(domain for _, domain, _ in rows)
    width = max(len(title), *(len(name) for name, _, _ in rows))
    lines = [
        (f"{title:<{width}}", f"{'domain':<6}", *(f"{column:>7}" for column in COLUMNS)),
        *(
            (
                f"{name:<{width}}",
                f"{domain:<6}",
                *(f"{scores[column]:>7.2%}" for column in COLUMNS),
            )
            for name, domain, scores in rows
        ),
    ]
    kept = (line if has_domains else (line[0], *line[2:]) for line in lines)
    return [" | ".join(line).rstrip() for line in kept]
