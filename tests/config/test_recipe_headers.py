"""Headers of recipes, and the ledger that is generated from them."""

from pathlib import Path

import pytest
from ember_reid.config import header_chain, load_config, read_header, recipe_names
from ember_reid.config.ledger import recipe_ledger

ROOT = Path(__file__).resolve().parents[2]
HEADER = """# A recipe
# in two lines.
#   python main.py -c x.yml \\
#     SEED 1
# score: Rank-1 94.4, mAP 86.1
# score (re-ranked): Rank-1 95.0, mAP 94.2
# source: FastReID, MODEL_ZOO.md, 2020-05-04, commit 35076d5
# differs: one thing,
#   and another.
# measured: mAP 1.0 (docs/benchmarks/results.md)
SEED: 1
# score: Rank-1 0.0
"""


def write(path, text):
    path.write_text(text)
    return path


def test_a_header_is_read(tmp_path):
    header = read_header(write(tmp_path / "x.yml", HEADER))
    assert header.title == "A recipe in two lines."
    assert header.commands == ("python main.py -c x.yml SEED 1",)
    assert [score.condition for score in header.scores] == ["", "re-ranked"]
    assert header.scores[0].values == (("Rank-1", 94.4), ("mAP", 86.1))
    assert header.differs == "one thing, and another."
    assert header.source.endswith("commit 35076d5") and header.measured.startswith("mAP 1.0")


def test_a_source_may_be_a_paper(tmp_path):
    text = HEADER.replace("commit 35076d5", "arXiv 2104.02008v1")
    header = read_header(write(tmp_path / "x.yml", text))
    assert header.source == "FastReID, MODEL_ZOO.md, 2020-05-04, arXiv 2104.02008v1"


def test_program_and_differences_are_inherited(tmp_path):
    write(tmp_path / "base.yml", "# Base.\n# program: P (1234567, 2020)\nSEED: 1\n")
    child = write(tmp_path / "child.yml", f"{HEADER}_BASE_: base.yml\n")
    assert [header.program for header in header_chain(child)] == ["P (1234567, 2020)", ""]


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("# source: FastReID, MODEL_ZOO.md, 2020-05-04, commit 35076d5\n", "", "found nothing"),
        (", commit 35076d5", "", "a score needs `# source: PAGE, YYYY-MM-DD, commit HASH`"),
        ("mAP 86.1", "mAP 861", "cannot read the score 'mAP 861'"),
        ("Rank-1 94.4, mAP 86.1", "none published", "has a score and 'none published'"),
        ("# measured", "# differs", "the header has two lines `# differs:`"),
    ],
)
def test_errors_are_one_line(old, new, message, tmp_path):
    recipe = write(tmp_path / "x.yml", HEADER.replace(old, new))
    with pytest.raises(ValueError, match=f"recipe .*x.yml: .*{message}") as caught:
        read_header(recipe)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_has_a_score_with_a_source_or_says_that_there_is_none(name):
    *bases, header = header_chain(name)
    assert header.title and header.commands
    assert header.scores or header.no_score
    if header.scores:
        assert header.program or any(base.program for base in bases)


def test_the_ledger_is_up_to_date():
    page = ROOT / "docs" / "reference" / "recipes.md"
    assert page.read_text(encoding="utf-8") == recipe_ledger(), (
        "python -m ember_reid.config.ledger > docs/reference/recipes.md"
    )


def test_the_six_missing_pairs_have_published_scores():
    expected = {
        "market1501/R50-R34": (95.13, 87.28),
        "market1501/R50-R18": (94.18, 85.81),
        "market1501/R34-R18": (93.71, 85.20),
        "msmt17/R50-R34": (81.28, 58.27),
        "msmt17/R50-R18": (78.11, 53.10),
        "msmt17/R34-R18": (77.65, 52.82),
    }
    for name, values in expected.items():
        (score,) = read_header(f"distill/{name}").scores
        assert score.values == (("Rank-1", values[0]), ("mAP", values[1]))


def test_recipes_of_the_last_fastreid_have_no_score():
    names = [name for name in recipe_names() if name.startswith("fastreid-head/")]
    assert len(names) == 4 and not any(read_header(name).scores for name in names)


def test_vkd_pairs_on_mars_quote_both_protocols():
    headers = [read_header(name) for name in recipe_names() if name.startswith("distill/vkd/mars/")]
    scored = {header.name: header.scores for header in headers if header.scores}
    assert len(scored) == 12
    for scores in scored.values():
        image, video = (score.condition for score in scores)
        assert image == "image to video" and video.startswith("video to video")
    values = [score.values for score in scored["distill/vkd/mars/self_resnet101"]]
    assert values[1] == (("Rank-1", 89.60), ("mAP", 82.65))


def test_vkd_recipes_use_the_metric_and_the_queries_of_their_table():
    names = [name for name in recipe_names() if name.startswith("distill/vkd/")]
    assert len(names) == 54
    for name in names:
        cfg = load_config(name)
        assert cfg.TEST.AVERAGE_PRECISION == "trapezoid"
        if "/veri/" in name:
            assert cfg.DATASETS.NAMES == ("veri776-image-to-video",)
