"""Every dataset is documented, and the script in the tutorial for tables of animals runs."""

import re
from pathlib import Path

from ember_reid.data.datasets import DATASETS, load_splits
from ember_reid.data.protocols import CHOICES

from tests.helpers.trees import write_images

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "reference" / "datasets.md").read_text(encoding="utf-8")
TUTORIAL = (DOCS / "tutorials" / "your-own-data.md").read_text(encoding="utf-8")


def test_every_dataset_and_protocol_is_documented():
    # Listed after the first dataset of this kind.
    suffixes = (
        "-1600",
        "-2400",
        "-5000",
        "-10000",
        "-detected",
    )
    for name in DATASETS:
        if not name.endswith(suffixes) and not name.startswith(("quickstart", "tiny")):
            assert re.search(rf"`{name}[`@]|{name}:/", TEXT), name
    assert all(
        f"`{protocol}`" in TEXT or f"TEST.PROTOCOL {protocol}" in TEXT for protocol in CHOICES
    )


def test_wildlife_conversion_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"{animal}{i}.jpg" for animal in "abcdef" for i in range(3)]
    write_images(tmp_path, [*names, "lone.jpg"])
    rows = [f"{name},{name[0]}" for name in names] + ["lone.jpg,z"]
    (tmp_path / "annotations.csv").write_text("\n".join(["file,individual", *rows]) + "\n")
    (code,) = re.findall(r"```python\n(.*?)```", TUTORIAL, flags=re.DOTALL)
    exec(compile(code, "your-own-data.md", "exec"), {})
    splits = load_splits("csv:list.csv")
    assert [len(splits.train), len(splits.query), len(splits.gallery)] == [
        9,
        3,
        6,
    ] and splits.protocol == "all"
    assert {r.pid for r in splits.query} == {r.pid for r in splits.gallery}
