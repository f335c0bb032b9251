"""Files of metrics: one JSON object or one row of a table per entry."""

import json

from ember_reid.engine.handlers.writers import CsvWriter, JsonLinesWriter


def test_a_table_grows_by_the_columns_that_appear(tmp_path):
    writer = CsvWriter(tmp_path / "results.csv")
    writer.open()
    writer.write("train", 1, 2, {"loss": 1.5, "lr": 0.1})
    writer.write("test/a,b", 1, 2, {"mAP": 0.25})
    writer.write("train", 2, 4, {"loss": 0.5, "lr": 0.1})
    assert (tmp_path / "results.csv").read_text() == (
        "what,epoch,iteration,loss,lr,mAP\n"
        "train,1,2,1.5,0.1,\n"
        '"test/a,b",1,2,,,0.25\n'
        "train,2,4,0.5,0.1,\n"
    )


def test_a_resumed_run_drops_later_and_incomplete_rows(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text(
        "what,epoch,iteration,loss,mAP\ntrain,1,2,1.5,\ntest/a,1,2,,0.25\ntrain,2,4,0.5,\ntrain,2,"
    )
    writer = CsvWriter(path)
    writer.open(resumed_iteration=2)
    writer.write("train", 2, 3, {"loss": 0.75, "acc": 1.0})
    assert path.read_text() == (
        "what,epoch,iteration,loss,mAP,acc\n"
        "train,1,2,1.5,,\ntest/a,1,2,,0.25,\ntrain,2,3,0.75,,1.0\n"
    )


def test_a_damaged_table_does_not_end_a_run(tmp_path):
    path = tmp_path / "results.csv"
    path.write_bytes(b"\xff\x00\nx,y,z,1\n")
    writer = CsvWriter(path)
    writer.open(resumed_iteration=9)
    writer.write("train", 1, 1, {"loss": 1.0})
    assert path.read_text().splitlines()[-1].endswith("1.0")


def test_a_resumed_run_drops_later_and_incomplete_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonLinesWriter(path)
    for iteration in (2, 4):
        writer.write("train", 1, iteration, {"loss": 1.0})
    with open(path, "a") as file:
        file.write('{"what": "tr')
    writer.open(resumed_iteration=2)
    assert [json.loads(line)["iteration"] for line in path.read_text().splitlines()] == [2]
