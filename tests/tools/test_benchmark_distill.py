"""`python -m tools.benchmark distill`."""

import re

import pytest
from ember_reid.tools.benchmark import command as benchmark


@pytest.fixture(scope="module")
def teacher(tiny_run) -> str:
    return str(tiny_run / "checkpoints" / "best.pt")


def run(recipe, *words) -> int:
    return benchmark.main(["distill", "-c", str(recipe), "--rounds", "3", *words])


def test_every_figure_is_printed_and_they_add_up(capsys, tiny_recipe, teacher):
    words = f"""KD.TEACHERS ('{teacher}',) KD.EMA.ENABLED True KD.LOGITS.WEIGHT 1 INPUT.NUM_FRAMES 2
        INPUT.FRAME_SAMPLING multiview KD.STUDENT_VIEWS 1""".split()
    assert run(tiny_recipe, *words) == 0
    found = re.findall(r"^(\w+) +(-?[\d.]+) ms ", capsys.readouterr().out, flags=re.MULTILINE)
    figures = {name: float(value) for name, value in found}
    assert list(figures) == ["plain", "distilled", "teachers", "overhead"]
    difference = figures["distilled"] - figures["plain"] - figures["teachers"]
    assert figures["overhead"] == pytest.approx(difference, abs=0.03)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the recipe has no teacher"),
        (("--rounds", "1"), "--rounds is 1; at least 2 are needed"),
    ],
)
def test_user_errors_are_one_line(capsys, tiny_recipe, words, message):
    assert run(tiny_recipe, *words) == 2
    assert message in capsys.readouterr().err
