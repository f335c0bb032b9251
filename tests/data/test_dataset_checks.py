from dataclasses import replace
from pathlib import Path

import pytest
from ember_reid.data.dataset_checks import (
    Advice,
    FileFacts,
    advise,
    estimate_reranking_gib,
    examine_file,
    examine_files,
    find_duplicates,
    find_few_matches,
    find_problems,
    find_size_mismatch,
    find_test_problems,
    find_tiny,
    find_training_problems,
    find_unusable_files,
    histogram,
    suggest_size,
)
from ember_reid.data.records import Record, Splits

from tests.helpers.trees import write_image


def record(name, pid, camid=0):
    return Record((Path(name),), pid, camid)


def same_bytes(splits, groups):
    """Facts in which the files of each group, a string of one-letter names, have the same bytes."""
    facts = {p: FileFacts(64, 128, str(p)) for r in splits.records() for p in r.paths}
    for group in groups:
        facts.update({Path(name): FileFacts(64, 128, group) for name in group})
    return facts


def test_examine_files(tmp_path):
    good = write_image(tmp_path / "a.png", size=(6, 9))
    twin = write_image(tmp_path / "b.png", size=(6, 9))
    bad = tmp_path / "c.png"
    bad.write_bytes(b"")
    told = []
    splits = Splits(
        (Record((good, bad), 0, 0),), (Record((twin,), 1, 0),), (Record((twin,), 1, 1),)
    )
    facts = examine_files(splits, progress=lambda done, total: told.append((done, total)))
    assert list(facts) == [good, bad, twin] and told == [(1, 3), (2, 3), (3, 3)]
    assert (facts[good].width, facts[good].height) == (6, 9) and facts[good].digest == facts[
        twin
    ].digest == examine_file(good).digest
    assert facts[bad].problem == f"{bad} is empty (0 bytes)"
    (finding,) = find_unusable_files(facts)
    assert finding.level == "error" and "1 of 3 image files cannot be read" in finding.text
    (finding,) = find_tiny(facts)
    assert "2 images are tiny" in finding.text and finding.examples[0].endswith("a.png (6 x 9)")


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (["ab"], ["1 images have two identities", "1 images occur several times"]),
        (["ac"], ["1 images occur several times"]),
        (["ad"], ["1 images are in training and test", "1 images occur several times"]),
        (["de"], ["1 images occur several times"]),
        (["df", "ac"], ["1 images have two identities", "2 images occur several times"]),
        ([], []),
    ],
)
def test_duplicate_files_are_found(groups, expected):
    train = (record("a", 0), record("b", 1), record("c", 0))
    splits = Splits(train, (record("d", 0),), (record("e", 0, 1), record("f", 5, 1)))
    findings = find_duplicates(splits, same_bytes(splits, groups))
    assert [finding.text.split(":")[0].split(" under")[0] for finding in findings] == expected


def test_a_query_in_the_gallery_matters_without_cameras_only():
    both = (record("a", 1),)
    splits = Splits((), both, (*both, record("b", 1)))
    facts = same_bytes(splits, [])
    assert find_duplicates(splits, facts) == []
    (finding,) = find_duplicates(replace(splits, protocol="all"), facts)
    assert "these queries find themselves" in finding.text
    assert find_duplicates(replace(splits, protocol="one-per-identity"), facts) == []


def test_training_problems():
    assert find_training_problems([])[0].level == "error"
    (finding,) = find_training_problems([record("a", 0), record("b", 0)])
    assert finding.level == "error" and "only one training identity" in finding.text
    train = [
        record("a", 0, 0),
        record("b", 0, 1),
        record("c", 1, 0),
        record("d", 2, 0),
        record("e", 2, 0),
    ]
    texts = [(finding.level, finding.text) for finding in find_training_problems(train)]
    assert texts == [
        ("note", "1 of 3 training identities have one image, which batches repeat"),
        ("warning", "2 of 3 training identities are seen by one camera only"),
    ]


def test_queries_without_a_match_and_why():
    query = (record("a", 1, 0), record("b", 2, 0), record("c", 3, 0))
    gallery = (record("d", 1, 1), record("e", 2, 0), record("f", -1, 1))
    absent, own = find_test_problems(Splits((), query, gallery))
    assert absent.text.startswith("1 of 3 queries have an identity") and absent.examples == (
        "identity 3",
    )
    assert own.text.startswith(
        "1 of 3 queries have matches in their own camera"
    ) and own.examples == ("b",)
    (finding,) = find_test_problems(Splits((), query[:1], (record("d", 1, 0),)))
    assert 'protocol "all"' in finding.text
    (finding,) = find_test_problems(Splits((), (), gallery))
    assert finding.level == "error" and "no query images" in finding.text


def test_errors_come_first():
    splits = Splits((record("a", 0),), (record("b", 1),), (record("c", 1, 1),))
    facts = {
        Path("a"): FileFacts(4, 4, "x"),
        Path("b"): FileFacts(0, 0, "", "b is broken"),
        Path("c"): FileFacts(4, 4, "y"),
    }
    assert [finding.level for finding in find_problems(splits, facts)] == [
        "error",
        "error",
        "warning",
        "warning",
        "note",
    ]


def test_histogram():
    assert histogram([1, 1, 2, 3, 4, 9]) == [("1", 2), ("2-3", 2), ("4-7", 1), ("8-15", 1)]
    assert histogram([5, 30]) == [("4-7", 1), ("8-15", 0), ("16-31", 1)]
    assert histogram([]) == []


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((128, 64), (256, 128)),
        ((60, 30), (128, 64)),
        ((300, 300), (224, 224)),
        ((100, 220), (128, 256)),
        ((300, 100), (320, 96)),
        ((160, 200), (192, 256)),
        ((30, 90), (48, 160)),
        ((9000, 100), (352, 96)),
    ],
)
def test_suggested_size(size, expected):
    assert suggest_size([size, size, (1, 1)]) == expected


def test_settings_are_suggested():
    train = tuple(record(f"{pid}{i}", pid) for pid in range(9) for i in range(3))
    splits = Splits(train, (record("q", 1),), (record("g", 1),))
    assert advise(splits, {}) == Advice((256, 128), 8, 2, "all")


def test_few_matches_per_query():
    query = (record("q", 1, 0), record("r", 2, 0), record("s", 3, 0))
    gallery = [record("a", 1, 1), record("b", 2, 1), record("c", 3, 1), record("d", -1, 1)]
    (finding,) = find_few_matches(Splits((), query, tuple(gallery)))
    assert finding.level == "note"
    assert finding.text.startswith("the median query has 1 matches in the gallery: re-ranking")
    # Matches of the query's own camera count without cameras only.
    gallery += [record(f"{pid}{i}", pid, 0) for pid in (1, 2, 3) for i in range(2)]
    (finding,) = find_few_matches(Splits((), query, tuple(gallery)))
    assert "1 matches" in finding.text
    assert find_few_matches(Splits((), query, tuple(gallery), "all")) == []
    assert find_few_matches(Splits((), (), ())) == []


def test_size_mismatch():
    facts = {Path("a"): FileFacts(200, 100, "x"), Path("b"): FileFacts(0, 0, "", "broken")}
    (finding,) = find_size_mismatch(facts, (256, 128))
    assert finding.level == "warning" and finding.text == (
        "the median image is 0.50 times as high as wide, the input size 256 x 128 (height x width)"
        " distorts it; 128 x 256 fits"
    )
    assert find_size_mismatch(facts, (128, 256)) == find_size_mismatch(facts, (128, 192)) == []
    assert find_size_mismatch({}, (256, 128)) == []


def test_memory_of_reranking_is_scaled_to_the_data():
    # 120 images: 120 x 200 x 12 bytes of entries and a matrix of 120 x 120 x 4 bytes
    expected = (120 * 200 * 12 + 120 * 120 * 4) / 2**30
    assert estimate_reranking_gib(120, tiles_gib=2.0) == pytest.approx(expected)
    assert estimate_reranking_gib(10**6, tiles_gib=2.0) == pytest.approx(2 + 2.4e9 / 2**30)
