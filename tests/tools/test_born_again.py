from pathlib import Path

import pytest
from ember_reid.config import load_config
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.tools.born_again import command as born_again
from ember_reid.tools.common.runs import PlannedRun

TEACHER = ["KD.TEACHERS", "('t.pt',)", "KD.EMBEDDING.WEIGHT", "1", "OUTPUT_DIR", "out"]


def test_each_generation_teaches_the_next():
    cfg = load_config(None, [*TEACHER, "SOLVER.BASE_LR", "1e-4"])
    plan = born_again.plan(cfg, count=3, factor=0.1, lowest=1e-5)
    assert plan == [
        PlannedRun(
            Path("out/generation1"), ("KD.TEACHERS", "('t.pt',)", "SOLVER.BASE_LR", "0.0001")
        ),
        *(
            PlannedRun(
                Path(f"out/generation{number}"),
                (
                    "KD.TEACHERS",
                    f"('out/generation{number - 1}/checkpoints/best.pt',)",
                    *("SOLVER.BASE_LR", "1e-05"),
                ),
            )
            for number in (2, 3)
        ),
    ]


def test_generations_need_one_teacher():
    with pytest.raises(ValueError, match="KD.TEACHERS names 0"):
        born_again.plan(load_config(None), count=2, factor=0.1, lowest=1e-5)
    with pytest.raises(ValueError, match="--count is 0"):
        born_again.plan(load_config(None, TEACHER), count=0, factor=0.1, lowest=1e-5)


def test_two_generations(tiny_run, tiny_recipe, tmp_path, capsys):
    teacher = tiny_run / "checkpoints" / "best.pt"
    words = [
        "KD.TEACHERS",
        f"('{teacher}',)",
        "KD.LOGITS.WEIGHT",
        "1",
        "KD.STUDENT_WEIGHTS",
        "teacher",
    ]
    words += ["KD.REINIT", "head", "SOLVER.MAX_EPOCHS", "1", "OUTPUT_DIR", str(tmp_path)]
    arguments = ["-c", str(tiny_recipe), "--count", "2", *words]
    assert born_again.main(arguments) == 0
    config = load_checkpoint(tmp_path / "generation2" / "checkpoints" / "best.pt")["config"]
    assert str(tmp_path / "generation1" / "checkpoints" / "best.pt") in config
    before = (tmp_path / "generation1" / "results.json").stat().st_mtime_ns
    # All generations are complete, so nothing runs.
    assert born_again.main(arguments) == 0
    assert (tmp_path / "generation1" / "results.json").stat().st_mtime_ns == before
    assert born_again.main([*arguments, "SEED", "7"]) == 2
    assert "another configuration (SEED 1 -> 7)" in capsys.readouterr().err
    assert born_again.main(["-c", str(tiny_recipe)]) == 2
    assert "generations have one teacher each" in capsys.readouterr().err
