"""The doctor's exit codes, text and page."""

import pytest
from ember_reid.tools.doctor.command import main

from tests.helpers.benchmark_trees import write_text
from tests.helpers.trees import write_images, write_market


@pytest.fixture
def own(tmp_path):
    """A list of four training and two test images without cameras."""
    write_images(tmp_path, [f"{i}.jpg" for i in range(6)])
    rows = [
        "0.jpg,a,train",
        "1.jpg,a,train",
        "2.jpg,b<i>,train",
        "3.jpg,b<i>,train",
        "4.jpg,c,query",
        "5.jpg,c,gallery",
    ]
    write_text(tmp_path / "own.csv", "path,pid,split", *rows)
    return tmp_path / "own.csv"


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_healthy_data(own, capsys):
    page = own.parent / "pages" / "report.html"
    code, out, _ = run(capsys, f"csv:{own}", "--out", page)
    assert (
        code == 0 and "The dataset can be used for training" in out and f"HTML page: {page}" in out
    )
    assert 'has no camera labels; protocol "all"' in out and "protocol: all" in out
    assert "DATALOADER.NUM_INSTANCES 2 (2 identities x 2)" in out
    assert "train: identities by number of items\n  2-3 ######" in out
    html = page.read_text()
    assert (
        "The dataset can be used for training" in html
        and "identities by number of cameras" in html
        and "http:" not in html
    )


def test_market_layout_names_the_official_numbers(tmp_path, capsys):
    code, out, _ = run(capsys, f"market1501:{write_market(tmp_path)}", "--out", tmp_path / "r.html")
    assert code == 0 and "not the official data: train has 2 identities (officially 751)" in out


def test_broken_images_fail(own, capsys):
    (own.parent / "2.jpg").write_bytes(b"no picture")
    code, out, _ = run(capsys, f"csv:{own}", "--out", own.parent / "r.html")
    assert code == 1 and "Training on this dataset would fail" in out
    assert "ERROR: 1 of 6 image files cannot be read" in out and "2.jpg cannot be decoded" in out
    assert "Training on this dataset would fail" in (own.parent / "r.html").read_text()


def test_html_is_escaped(own, capsys):
    (own.parent / "2.jpg").rename(own.parent / "<b>.jpg")
    own.write_text(own.read_text().replace("2.jpg", "<b>.jpg"))
    (own.parent / "<b>.jpg").write_bytes(b"")
    run(capsys, f"csv:{own}", "--out", own.parent / "r.html")
    html = (own.parent / "r.html").read_text()
    assert "&lt;b&gt;.jpg" in html and "<b>.jpg" not in html


def test_missing_images_fail(own, tmp_path, capsys):
    own.write_text("path,pid,split\nnone.jpg,1,train\n")
    code, _, err = run(capsys, f"csv:{own}")
    assert (
        code == 1
        and err.startswith("doctor: training would fail:")
        and "line 2" in err
        and err.count("\n") == 1
    )
    code, _, err = run(capsys, "mars", "--root", tmp_path)
    assert code == 1 and "mars is not in" in err
    code, _, err = run(capsys, "nothing:/x")
    assert code == 2 and 'unknown dataset "nothing"' in err
