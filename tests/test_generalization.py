"""Training on several datasets: balanced batches, mixed styles, and cross-domain scores."""

import json
import shutil

import pytest
from ember_reid.data.build import build_splits
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.tools.report.command import main as report

from ember_reid import main
from tests.helpers import tiny

MIXED = (
    "DATALOADER.SAMPLER identity-domains MODEL.MIXSTYLE.STAGES (1,2) MODEL.MIXSTYLE.PROB 1.0 "
    "MODEL.MIXSTYLE.MIX datasets SOLVER.MAX_EPOCHS 1"
).split()


@pytest.fixture(scope="module")
def sources(tiny_market, tmp_path_factory):
    """Words that name two training datasets and three test sets, the last of another dataset."""
    folder = tmp_path_factory.mktemp("sources")
    specs = [f"market1501:{tiny_market}"]
    for name in ("second", "third"):
        specs.append(f"market1501:{tiny.write_market(folder / name)}")
    return ["DATASETS.NAMES", str(specs[:2]), "DATASETS.TESTS", str(specs)]


@pytest.fixture(scope="module")
def mixed_run(sources, train, tmp_path_factory):
    words = [*MIXED, *sources]
    return train(tmp_path_factory.mktemp("mixed") / "run", *words)


def test_loader_processes_do_not_change_mixed_styles(sources, mixed_run, train, tmp_path):
    words = [*MIXED, *sources]
    words += ["DATALOADER.CACHE", "none", "DATALOADER.NUM_WORKERS", "2"]
    other = train(tmp_path / "run", *words)
    found, expected = (
        load_checkpoint(folder / "checkpoints" / "last.pt")["checksums"]
        for folder in (other, mixed_run)
    )
    assert found == expected


def test_scores_say_which_test_sets_are_of_other_datasets(mixed_run, tmp_path):
    results = json.loads((mixed_run / "results.json").read_text())
    assert list(results) == ["market1501", "market1501-2", "market1501-3"]
    comparison = json.loads((mixed_run / "cross_domain.json").read_text())
    domains = {name: row["domain"] for name, row in comparison["tests"].items()}
    assert domains == {"market1501": "same", "market1501-2": "same", "market1501-3": "cross"}
    assert comparison["mean"]["mAP"] == results["market1501-3"]["mAP"]
    log = (mixed_run / "log.txt").read_text()
    assert "market1501-3 | cross  |" in log and "mean         | cross  |" in log
    folder = shutil.copytree(mixed_run, tmp_path / "copy")
    assert report([str(folder), "--plain"]) == 0
    page = (folder / "report.html").read_text()
    assert "<td>market1501-3</td><td>cross</td>" in page and "<td>mean</td><td>cross</td>" in page
    (folder / "cross_domain.json").write_text('{"tests": {"a": 1}, "mean": {}}')
    assert report([str(folder), "--plain"]) == 2


def test_a_test_of_the_checkpoint_knows_the_training_datasets(mixed_run, tmp_path):
    best = str(mixed_run / "checkpoints" / "best.pt")
    words = ["OUTPUT_DIR", str(tmp_path)]
    assert main.main(["-t", "TEST.WEIGHT", best, *words]) == 0
    tests = json.loads((tmp_path / "cross_domain.json").read_text())["tests"]
    assert [row["domain"] for row in tests.values()] == ["same", "same", "cross"]
    # Training datasets that are no longer there.
    words += ["DATASETS.NAMES", "['viper']"]
    assert main.main(["-t", "TEST.WEIGHT", best, *words]) == 0
    tests = json.loads((tmp_path / "cross_domain.json").read_text())["tests"]
    assert [row["domain"] for row in tests.values()] == ["cross"] * 3


def test_records_know_their_dataset(sources, tiny_recipe):
    cfg = main.load_config(tiny_recipe, [*sources, "TEST.VALIDATION", "0.25"])
    data = build_splits(cfg)
    assert {(record.domain, record.camid) for record in data.train} == {
        *((0, 0), (0, 1), (1, 2), (1, 3))
    }
    # Two of eight identities of each dataset are held out.
    assert [record.domain for record in data.train] == [0] * 24 + [1] * 24
    assert data.same_domain == (
        *("market1501-validation", "market1501-validation-2"),
        *("market1501", "market1501-2"),
    )


@pytest.mark.parametrize(
    "words, message",
    [
        (
            "MODEL.MIXSTYLE.STAGES (1,) MODEL.MIXSTYLE.MIX datasets",
            "MODEL.MIXSTYLE.MIX datasets mixes images of different datasets, but the training data "
            "has 1: use random",
        ),
        (
            "MODEL.MIXSTYLE.STAGES (3,)",
            "MODEL.MIXSTYLE.STAGES is (3,), but tiny has the stages 1 to 2 here",
        ),
        (
            "DATALOADER.SAMPLER identity-domains SOLVER.IMS_PER_BATCH 6 DATASETS.NAMES {sources}",
            "the 3 identities of a batch cannot be divided equally over 2 training datasets; "
            "SOLVER.IMS_PER_BATCH must be a multiple of 4",
        ),
    ],
)
def test_errors_are_one_line(words, message, sources, tiny_recipe, tmp_path, capfd):
    found = [sources[1] if word == "{sources}" else word for word in words.split()]
    arguments = ["-c", str(tiny_recipe), *found, "OUTPUT_DIR", str(tmp_path / "run")]
    assert main.main(arguments) == 2
    assert capfd.readouterr().err.splitlines()[-1] == f"main.py: {message}"
    assert not (tmp_path / "run" / "config.yml").exists()
