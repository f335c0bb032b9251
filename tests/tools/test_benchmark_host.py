"""`benchmark host` measures the work of the host without executing a step."""

import re

from ember_reid.tools.benchmark import host


def test_the_time_of_the_host_is_printed(tiny_recipe, capsys):
    assert host.main(["-c", str(tiny_recipe), "--iterations", "5"]) == 0
    text = capsys.readouterr().out
    assert "batch 8, 5 iterations" in text
    median = float(re.search(r"host +([0-9.]+) ms", text).group(1))
    assert 0 < median < 1000


def test_steps_that_cannot_be_captured_have_no_host_time(tiny_recipe, capsys):
    words = ["-c", str(tiny_recipe), "SOLVER.ACCUMULATION_STEPS", "2"]
    assert host.main(words) == 2
    assert "cannot be captured" in capsys.readouterr().err
    assert host.main(["-c", str(tiny_recipe), "--iterations", "1"]) == 2
    assert "at least 2 are needed" in capsys.readouterr().err
