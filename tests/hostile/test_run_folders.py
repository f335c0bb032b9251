"""Run folders with changed or damaged files, for the report, for explain and for resuming."""

import json
import shutil

import yaml
from ember_reid.tools.report import main as report
from hypothesis import given
from hypothesis import strategies as st

from ember_reid import cli, main
from tests.hostile import strategies
from tests.hostile.harness import check, check_training

FILES = ("config.yml", "metrics.jsonl", "results.json", "environment.json", "log.txt")


def copy_run(tiny_run, fresh):
    return shutil.copytree(tiny_run, fresh("runs") / "run")


def change_file(data, path):
    """Replace a file: by other values, by damaged bytes, by nothing, or by a folder."""
    kind = data.draw(st.sampled_from(("values", "values", "bytes", "missing", "folder")))
    if kind == "values" and path.suffix != ".txt":
        path.write_text(_other_values(data, path), encoding="utf-8", errors="replace")
    elif kind == "bytes":
        path.write_bytes(data.draw(strategies.changed_bytes(path.read_bytes())))
    elif kind in ("missing", "folder"):
        path.unlink()
        if kind == "folder":
            path.mkdir()


def _other_values(data, path) -> str:
    text = path.read_text()
    replacements = strategies.values
    if path.suffix == ".yml":
        return yaml.safe_dump(
            data.draw(strategies.changed_contents(yaml.safe_load(text), replacements))
        )
    if path.suffix == ".json":
        return json.dumps(data.draw(strategies.changed_contents(json.loads(text), replacements)))
    lines = [json.loads(line) for line in text.splitlines()]
    changed = data.draw(strategies.changed_contents(lines, replacements))
    return "\n".join(json.dumps(line) for line in (changed if isinstance(changed, list) else []))


def change_files(data, folder):
    for name in data.draw(st.sets(st.sampled_from(FILES), min_size=1, max_size=2)):
        change_file(data, folder / name)


@given(data=st.data())
def test_report(data, tiny_run, fresh):
    folder = copy_run(tiny_run, fresh)
    change_files(data, folder)
    check("run folder, report", report, [str(folder), "--plain"])


@given(data=st.data())
def test_report_of_two_runs(data, tiny_run, fresh):
    folder = copy_run(tiny_run, fresh)
    change_files(data, folder)
    page = str(folder.parent / "page.html")
    check("run folder, comparison", report, [str(folder), str(tiny_run), "--plain", "--out", page])


@given(data=st.data())
def test_resume(data, tiny_run, fresh):
    folder = copy_run(tiny_run, fresh)
    change_files(data, folder)
    words = ["-c", str(folder / "config.yml"), "--resume", "OUTPUT_DIR", str(folder)]
    check_training("run folder, resume", words)


@given(data=st.data())
def test_new_run_in_the_folder(data, tiny_run, tiny_recipe, fresh):
    folder = copy_run(tiny_run, fresh)
    change_files(data, folder)
    words = ["-c", str(tiny_recipe), "OUTPUT_DIR", str(folder)]
    check_training("run folder, new run", [*words, "OVERWRITE", str(data.draw(st.booleans()))])


@given(data=st.data())
def test_finished_run_is_scored_again(data, tiny_run, fresh):
    folder = copy_run(tiny_run, fresh)
    change_files(data, folder)
    check("run folder, whole resume", cli.main, ["resume", str(folder)])


@given(folder=strategies.texts)
def test_folders_that_are_no_runs(folder):
    word = strategies.as_word(folder)
    check("no run folder", report, ["--plain", "--", word])
    check("no run folder", main.main, ["--resume", "OUTPUT_DIR", word])
