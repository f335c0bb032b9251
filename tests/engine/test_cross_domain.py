"""The table of test sets, and the mean over the cross-domain ones."""

import pytest
from ember_reid.engine.cross_domain import compare_domains, describe_transfer


def scores(value):
    names = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10")
    return {name: value + place / 100 for place, name in enumerate(names)} | {"num_query": 3}


RESULTS = {"city": scores(0.5), "village": scores(0.25), "harbor": scores(0.125)}


def test_one_test_set_of_the_training_dataset_has_no_table():
    words = {"trained_on": ("city",), "same_domain": ("city",)}
    assert describe_transfer({"city": scores(0.5)}, **words) == []
    assert compare_domains({"city": scores(0.5)}, **words) == {}


def test_test_sets_of_training_datasets_only():
    words = {"trained_on": ("a", "b"), "same_domain": ("city", "village")}
    results = {name: RESULTS[name] for name in ("city", "village")}
    assert compare_domains(results, **words) == {}
    assert describe_transfer(results, **words) == [
        "trained on a, b",
        "tested on |     mAP |  Rank-1 |    mINP",
        "city      |  50.00% |  52.00% |  51.00%",
        "village   |  25.00% |  27.00% |  26.00%",
    ]


def test_the_mean_is_over_cross_domain_test_sets_only():
    words = {"trained_on": ("city:/data",), "same_domain": ("city",)}
    comparison = compare_domains(RESULTS, **words)
    assert comparison["trained_on"] == ["city:/data"]
    assert {name: row["domain"] for name, row in comparison["tests"].items()} == {
        **{"city": "same", "village": "cross", "harbor": "cross"}
    }
    assert comparison["tests"]["village"]["Rank-10"] == pytest.approx(0.29)
    assert comparison["mean"] == pytest.approx(
        {"mAP": 0.1875, "mINP": 0.1975, "Rank-1": 0.2075, "Rank-5": 0.2175, "Rank-10": 0.2275}
    )
    assert describe_transfer(RESULTS, **words) == [
        "trained on city:/data",
        "tested on | domain |     mAP |  Rank-1 |    mINP",
        "city      | same   |  50.00% |  52.00% |  51.00%",
        "village   | cross  |  25.00% |  27.00% |  26.00%",
        "harbor    | cross  |  12.50% |  14.50% |  13.50%",
        "mean      | cross  |  18.75% |  20.75% |  19.75%",
    ]


def test_a_single_cross_domain_test_set_has_a_table():
    words = {"trained_on": ("city",), "same_domain": ()}
    assert len(describe_transfer({"village": scores(0.25)}, **words)) == 4
