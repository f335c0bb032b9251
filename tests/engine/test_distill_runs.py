"""Distillation from the command line; each error is one line."""

import json
import shutil

import pytest
import torch
from ember_reid.engine.checkpoint import load_checkpoint, save_checkpoint

from ember_reid import main


@pytest.fixture(scope="module")
def teacher(tiny_run) -> str:
    return str(tiny_run / "checkpoints" / "best.pt")


@pytest.fixture(scope="module")
def student_run(tmp_path_factory, train, teacher):
    """A tiny student on smaller images, with all losses that need no stage maps."""
    return train(tmp_path_factory.mktemp("kd") / "student", *student_words(teacher))


def student_words(teacher: str) -> list[str]:
    return f"""KD.TEACHERS ('{teacher}',) KD.LOGITS.WEIGHT 1.0 KD.DISTANCES.WEIGHT 0.01
        KD.EMBEDDING.WEIGHT 1 KD.RELATION.SIMILARITY_WEIGHT 1 KD.EMA.ENABLED True
        SOLVER.ACCUMULATION_STEPS 2
        MODEL.HEAD.EMBEDDING_DIM 12 INPUT.SIZE_TRAIN (24,12) INPUT.SIZE_TEST (24,12)""".split()


def test_a_distilled_checkpoint_contains_only_the_student(student_run, tmp_path):
    content = load_checkpoint(student_run / "checkpoints" / "best.pt")
    assert not any("projection" in name or "connector" in name for name in content["model"])
    assert any("projections.1" in name for name in content["criterion"])
    copy = tmp_path / "elsewhere.pt"
    save_checkpoint(copy, content)
    code = main.main(["-t", "TEST.WEIGHT", str(copy), "OUTPUT_DIR", str(tmp_path / "out")])
    assert code == 0
    scores = [
        json.loads((d / "results.json").read_text())["market1501"]
        for d in (student_run, tmp_path / "out")
    ]
    # best.pt may be of an earlier epoch.
    assert scores[0]["mAP"] == pytest.approx(scores[1]["mAP"], abs=0.2)


def test_all_losses_are_logged_and_finite(student_run):
    lines = [json.loads(line) for line in (student_run / "metrics.jsonl").read_text().splitlines()]
    text = json.dumps(lines)
    for name in ("kd", "distances", "embedding", "similarity"):
        assert f'"{name}"' in text or f"/{name}" in text
    assert "NaN" not in text


def test_teacher_and_student_are_compared(student_run):
    table = json.loads((student_run / "distillation.json").read_text())
    assert [row["name"].split()[0] for row in table["rows"]] == ["teacher", "student"]
    rows = table["rows"]
    assert 0 <= rows[0]["mAP"] <= 1
    assert rows[0]["milliseconds"] > 0
    # Smaller images
    assert rows[1]["gflops"] < rows[0]["gflops"]


def test_checkpoints_list_their_identities(teacher):
    classes = load_checkpoint(teacher)["classes"]
    assert classes == [["market1501", str(pid)] for pid in range(1, 9)]


def test_the_average_is_in_the_checkpoint(student_run):
    content = load_checkpoint(student_run / "checkpoints" / "last.pt")
    assert set(content["ema"]) == set(content["model"])


def test_a_distillation_resumes(student_run, tiny_recipe, tmp_path, teacher):
    out = tmp_path / "resumed"
    shutil.copytree(student_run, out)
    words = [*student_words(teacher), "SOLVER.MAX_EPOCHS", "3", "OUTPUT_DIR", str(out)]
    assert main.main(["-c", str(tiny_recipe), "--resume", *words]) == 0
    before, after = (load_checkpoint(run / "checkpoints" / "last.pt") for run in (student_run, out))
    assert (before["progress"]["iteration"], after["progress"]["iteration"]) == (8, 12)
    assert not torch.equal(
        before["ema"]["head.neck.running_mean"], after["ema"]["head.neck.running_mean"]
    )


def test_multi_view_student(tmp_path, train, teacher):
    words = f"""KD.TEACHERS ('{teacher}',) KD.LOGITS.WEIGHT 0.1 KD.LOGITS.KIND kl
        KD.DISTANCES.WEIGHT 1e-4 INPUT.NUM_FRAMES 3 INPUT.FRAME_SAMPLING multiview
        KD.STUDENT_VIEWS 1 KD.STUDENT_WEIGHTS teacher KD.REINIT head
        KD.TEACHER_STATISTICS batch SOLVER.MAX_EPOCHS 1""".split()
    folder = train(tmp_path / "vkd", *words)
    assert (folder / "results.json").is_file()


def run_and_read(capsys, tiny_recipe, out, *words) -> str:
    code = main.main(["-c", str(tiny_recipe), *words, "OUTPUT_DIR", str(out)])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert not out.exists(), "nothing may be written before all checks have passed"
    return error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("KD.TEACHERS ('no/such.pt',) KD.LOGITS.WEIGHT 1", "there is no file no/such.pt"),
        ("KD.TEACHERS ('TEACHER',)", "all weights are 0"),
        ("KD.LOGITS.WEIGHT 1", "KD.LOGITS.WEIGHT needs a teacher"),
        ("KD.STUDENT_VIEWS 4 INPUT.NUM_FRAMES 2", "KD.STUDENT_VIEWS is 4, more than the 2 views"),
        (
            "KD.TEACHERS ('TEACHER',) KD.FEATURE.WEIGHT 1",
            "which TinyBackbone does not have",
        ),
        ("KD.SELF.WEIGHT 1", "returns the maps of 2 stage"),
        ("KD.SELF.WEIGHT 1 KD.SELF.LEARNERS (3,)", "KD.SELF.LEARNERS (3,) must be before"),
        ("KD.STUDENT_WEIGHTS teacher", "KD.STUDENT_WEIGHTS teacher needs KD.TEACHERS"),
        ("KD.LOGITS.TEMPERATURE 0", "KD.LOGITS.TEMPERATURE is 0"),
        ("KD.FEATURE.STAGE_WEIGHTS (1,2)", "allowed: 4 numbers"),
        ("KD.FEATURE.EVERY 0", "allowed: 1 to"),
        ("KD.SELF.WEIGHT 1 SOLVER.ACCUMULATION_STEPS 2", "they need SOLVER.MINING local"),
        (
            "KD.TEACHERS ('TEACHER',) KD.FEATURE.WEIGHT 1 KD.STUDENT_VIEWS 1 INPUT.NUM_FRAMES 2",
            "maps of the same images",
        ),
    ],
)
def test_user_errors_are_one_line(capsys, tiny_recipe, tmp_path, teacher, words, message):
    words = words.replace("TEACHER'", f"{teacher}'").split()
    assert message in run_and_read(capsys, tiny_recipe, tmp_path / "out", *words)


def test_a_file_that_is_not_a_checkpoint_is_refused(capsys, tiny_recipe, tmp_path):
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "foreign.pt")
    for name, message in (
        ("text.pt", "weight file"),
        ("foreign.pt", "is not a checkpoint of this program"),
    ):
        words = ["KD.TEACHERS", f"('{tmp_path / name}',)", "KD.LOGITS.WEIGHT", "1"]
        assert message in run_and_read(capsys, tiny_recipe, tmp_path / "out", *words)


def test_a_teacher_without_common_identities_is_refused_for_logits(
    capsys, tiny_recipe, tmp_path, teacher, train
):
    content = load_checkpoint(teacher)
    save_checkpoint(
        tmp_path / "other.pt", content | {"classes": [["duke", str(i)] for i in range(8)]}
    )
    words = ["KD.TEACHERS", f"('{tmp_path / 'other.pt'}',)", "KD.LOGITS.WEIGHT", "1"]
    assert "with 0 in common" in run_and_read(capsys, tiny_recipe, tmp_path / "out", *words)
    words = [*words[:2], "KD.EMBEDDING.WEIGHT", "1", "SOLVER.MAX_EPOCHS", "1"]
    assert (train(tmp_path / "fine", *words) / "results.json").is_file()


def test_a_teacher_of_another_size_gives_a_warning(
    student_run, capsys, tiny_recipe, tmp_path, teacher
):
    words = f"""KD.TEACHERS ('{teacher}',) KD.EMBEDDING.WEIGHT 1 INPUT.SIZE_TRAIN (24,12)
        SOLVER.MAX_EPOCHS 1""".split()
    assert main.main(["-c", str(tiny_recipe), *words, "OUTPUT_DIR", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert (
        "expects 32 x 16 pixels: the student's images of 24 x 12 are resized" in said.err + said.out
    )
