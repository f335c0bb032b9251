import pytest
import torch
from ember_reid.tools.benchmark.command import main
from ember_reid.tools.benchmark.search import make_embeddings


def test_identities_have_the_requested_spread():
    embeddings = make_embeddings(4100, dim=256, identities=50, spread=0.3)
    gallery, query = embeddings[100:], embeddings[:100]
    assert gallery.shape == (4000, 256)
    assert torch.allclose(gallery.norm(dim=1), torch.ones(4000), atol=1e-5)
    same = torch.arange(100)[:, None] % 50 == torch.arange(100, 4100) % 50
    distances = 1 - query @ gallery.T
    assert distances[same].mean() == pytest.approx(0.3, abs=0.01)
    assert distances[~same].mean() == pytest.approx(1, abs=0.02)
    apart = make_embeddings(4100, dim=256, identities=0, spread=0.3)
    assert (1 - apart[:100] @ apart[100:].T).mean() == pytest.approx(1, abs=0.01)


def test_identities_of_fewer_dimensions_are_nearer():
    # The cosine of two random directions of 16 dimensions has the variance 1 / 16.
    embeddings = make_embeddings(400, dim=256, identities=400, spread=0.2, rank=16)
    cosines = (embeddings @ embeddings.T)[~torch.eye(400, dtype=torch.bool)] / 0.8
    assert cosines.var() == pytest.approx(1 / 16, rel=0.1)


@pytest.mark.extras
def test_the_command_prints_both_searches(capsys):
    words = "search --entries 900 --dim 16 --queries 5 --identities 40 --top 3 --faiss".split()
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("900 x 16 float32, 0.00 GiB, 40 identities")
    assert [line.split(",")[0] for line in lines[1:]] == ["exact", "exact", "faiss", "faiss"]
    assert (
        "1 queries at once" in lines[1]
        and "5 queries at once" in lines[2]
        and "recall at 3" in lines[4]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--entries", "0"], "--entries is 0, it must be at least 1"),
        (["--identities", "-1"], "--identities is -1, it must be at least 0"),
        (["--spread", "1"], "--spread is 1.0, it must be between 0 and 1"),
    ],
)
def test_user_errors_are_one_line(capsys, words, message):
    assert main(["search", *words]) == 2
    assert capsys.readouterr().err == f"benchmark search: {message}\n"


def test_more_than_the_memory_is_refused(capsys):
    assert main(["search", "--entries", "1000000000000"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("benchmark search: --entries 1000000000000 and --dim 512 need about")
