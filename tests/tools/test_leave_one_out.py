"""One run per dataset that is left out, and their table."""

import json
import shutil
from pathlib import Path

import pytest
from ember_reid.config import load_config
from ember_reid.tools.leave_one_out.command import main, plan, write_table

from tests.helpers import tiny


def test_each_dataset_is_left_out_once(tiny_market, tmp_path):
    other = tiny.write_market(tmp_path / "market1501")
    table = tmp_path / "my cows.csv"
    specs = [f"market1501:{tiny_market}", f"market1501:{other}", f"csv:{table}"]
    cfg = load_config(None, ["DATASETS.NAMES", str(specs), "OUTPUT_DIR", "out"])
    runs = plan(cfg)
    assert [run.folder for run in runs.values()] == [
        *(Path("out/without-market1501"), Path("out/without-market1501-2")),
        Path("out/without-my_cows"),
    ]
    assert runs["market1501-2"].words == (
        *("DATASETS.NAMES", str([specs[0], specs[2]])),
        *("DATASETS.TESTS", str([specs[1]])),
    )


def test_the_table_has_a_mean(tmp_path):
    names = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10")
    scores = {name: dict.fromkeys(names, value) for name, value in (("a", 0.5), ("bb", 0.25))}
    assert write_table(tmp_path, ["a:/x", "bb"], scores) == [
        "left out |     mAP |  Rank-1 |    mINP",
        "a        |  50.00% |  50.00% |  50.00%",
        "bb       |  25.00% |  25.00% |  25.00%",
        "mean     |  37.50% |  37.50% |  37.50%",
    ]
    content = json.loads((tmp_path / "leave_one_out.json").read_text())
    assert content["mean"]["Rank-5"] == 0.375
    assert [(row["left_out"], row["name"]) for row in content["rows"]] == [("a:/x", "a")] + [
        ("bb", "bb")
    ]


def test_two_datasets_and_a_continued_series(tiny_recipe, tiny_market, tmp_path, capfd):
    other = shutil.copytree(tiny_market, tmp_path / "other")
    out = tmp_path / "out"
    specs = [f"market1501:{tiny_market}", f"market1501:{other}"]
    words = ["DATASETS.NAMES", str(specs), "OUTPUT_DIR", str(out), "SOLVER.MAX_EPOCHS", "1"]
    arguments = ["-c", str(tiny_recipe), *words]
    assert main(arguments) == 0
    first = json.loads((out / "leave_one_out.json").read_text())
    assert [row["left_out"] for row in first["rows"]] == specs
    scores = json.loads((out / "without-market1501" / "results.json").read_text())["market1501"]
    assert first["rows"][0]["mAP"] == scores["mAP"]
    domains = json.loads((out / "without-market1501" / "cross_domain.json").read_text())
    assert domains["tests"]["market1501"]["domain"] == "cross"
    lines = (out / "leave_one_out.txt").read_text().splitlines()
    assert lines == capfd.readouterr().out.splitlines()[-4:] and lines[-1].startswith("mean")
    # The first run is complete, the second one continues after its last epoch.
    before = (out / "without-market1501" / "results.json").stat().st_mtime_ns
    (out / "without-market1501-2" / "results.json").unlink()
    assert main(arguments) == 0
    assert json.loads((out / "leave_one_out.json").read_text()) == first
    assert (out / "without-market1501" / "results.json").stat().st_mtime_ns == before
    capfd.readouterr()
    assert main([*arguments, "SEED", "2"]) == 2
    assert "another configuration (SEED 1 -> 2): choose" in capfd.readouterr().err
    (out / "without-market1501" / "results.json").write_text("[")
    assert main(arguments) == 2
    assert "results.json is damaged" in capfd.readouterr().err


@pytest.mark.parametrize(
    "names, message",
    [
        ("['viper']", "needs at least two in DATASETS.NAMES, found 1: viper"),
        ("['{data}', '{data}']", "twice"),
        ("['{data}', 'viper']", "viper is not in"),
    ],
)
def test_errors_are_one_line(names, message, tiny_recipe, tiny_market, tmp_path, capsys):
    names = names.format(data=f"market1501:{tiny_market}")
    words = ["DATASETS.NAMES", names, "OUTPUT_DIR", str(tmp_path), "DATASETS.ROOT", str(tmp_path)]
    assert main(["-c", str(tiny_recipe), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("leave_one_out: ") and message in error and error.count("\n") == 1
