import pytest
from ember_reid.tools.benchmark.command import main
from ember_reid.tools.benchmark.link import make_tracklets


def test_tracklets_of_an_identity_do_not_overlap():
    tracklets = make_tracklets(12, 3, 2)
    for identity in range(3):
        mine = tracklets[identity::3]
        assert all(a.last < b.first for a, b in zip(mine, mine[1:], strict=False))
    assert {tracklet.camid for tracklet in tracklets} == {"cam0", "cam1"}


def test_well_separated_identities_are_found(capsys):
    words = "link --tracklets 40 --per-identity 4 --dim 256 --rank 256 --spread 0.1".split()
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    # 10 identities with 4 * 3 / 2 pairs each.
    assert lines[1] == "40 tracklets of 10 identities, 60 near pairs"
    assert lines[2].startswith("  near pairs ") and "MiB" in lines[2]
    assert "10 identities found" in lines[3] and "F1 100.0%" in lines[3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tracklets", "5", "0"], "--tracklets is 0, it must be at least 1"),
        (["--rank", "513"], "--rank is 513, it must be at most --dim, 512"),
        (["--spread", "1"], "--spread is 1.0, it must be between 0 and 1"),
        (["--threshold", "0"], "--threshold is 0.0, it must be in 0..1"),
    ],
)
def test_user_errors_are_one_line(words, message, capsys):
    assert main(["link", *words]) == 2
    assert capsys.readouterr().err == f"benchmark link: {message}\n"
