"""The benchmark of a clustering."""

import re

import numpy as np
import pytest
import torch
from ember_reid.tools.benchmark.cluster import main, make_embeddings


def test_embeddings_have_the_spread_that_was_asked_for():
    class Options:
        items, identities, dim, spread = 300, 2, 512, 0.3

    embeddings = make_embeddings(Options)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(300))
    cosines = np.sort((embeddings @ embeddings.T).numpy()[~np.eye(300, dtype=bool)])
    # Half of the pairs are of one identity.
    assert cosines[len(cosines) // 2 + 1000 :].mean() == pytest.approx(0.7, abs=0.03)


def test_it_is_compared_with_the_reranking(capsys):
    assert main("--items 400 --identities 10 --dim 32 --spread 0.3".split()) == 0
    output = capsys.readouterr().out
    assert re.search(r"clustering \d+\.\d s, \d+\.\d\d x the re-ranking that it contains", output)
    assert "10 clusters, 0 outliers" in output and "peak memory of the process" in output


def test_errors_are_one_line(capsys):
    assert main(["--radius", "2"]) == 2
    error = capsys.readouterr().err
    assert error == "benchmark cluster: --radius is 2.0, it must be between 0 and 1\n"
