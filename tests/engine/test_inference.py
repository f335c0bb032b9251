"""Inference with fused batch norms and one graph per batch size, with a simulated capture."""

import json

import pytest
import torch
from ember_reid.data.batch import Batch
from ember_reid.engine import evaluator as evaluators
from ember_reid.engine import inference
from ember_reid.engine.evaluator import EmbeddingAccumulator, create_evaluator
from ember_reid.engine.inference import Captured, CapturedInference
from ember_reid.modeling.model import GlobalHead, HeadOptions, ReidModel

from tests.helpers.tiny import TinyBackbone

CPU = torch.device("cpu")


class Capture:
    """Simulates CUDA graphs: a replay computes the function of the static input again."""

    def __init__(self):
        self.sizes = []

    def __call__(self, function, images):
        self.sizes.append(len(images))
        output = function(images)
        return Captured(images, lambda: output.copy_(function(images)), output)


def double(images):
    return images.float().flatten(1) * 2


def test_one_graph_serves_batches_of_its_size_and_smaller_ones():
    capture = Capture()
    embed = CapturedInference(double, CPU, capture)
    batches = [torch.full((size, 1, 2), value) for value, size in enumerate((3, 3, 1, 2), 1)]
    found = [embed(images) for images in batches]
    assert [out.tolist() for out in found] == [double(images).tolist() for images in batches]
    assert capture.sizes == [3]


def test_larger_batches_and_other_shapes_have_their_own_graph():
    capture = Capture()
    embed = CapturedInference(double, CPU, capture)
    for shape in ((2, 1, 2), (4, 1, 2), (1, 1, 2), (2, 1, 3), (3, 1, 2)):
        assert embed(torch.ones(shape)).tolist() == [[2.0] * shape[2]] * shape[0]
    assert capture.sizes == [2, 4, 2]


@pytest.mark.parametrize("error", ["operation not permitted", "CUDA out of memory"])
def test_a_failed_capture_is_one_line_and_continues(error, caplog):
    calls = []

    def fail(function, images):
        calls.append(len(images))
        raise RuntimeError(error)

    embed = CapturedInference(double, CPU, fail)
    for size in (2, 3, 1):
        assert embed(torch.ones(size, 1)).tolist() == [[2.0]] * size
    assert calls == [2] and len(caplog.records) == 1
    assert "continues without" in caplog.text and error in caplog.text


@pytest.mark.parametrize("flip", [False, True])
def test_a_fused_network_gives_the_same_embeddings_up_to_rounding(flip, monkeypatch):
    torch.manual_seed(0)
    model = ReidModel(TinyBackbone(), GlobalHead(16, 4, HeadOptions()))
    generator = torch.Generator().manual_seed(0)
    # Statistics that differ from 0 and 1.
    model.train()(torch.rand((4, 3, 32, 16), generator=generator))
    images = torch.randint(0, 256, (3, 3, 32, 16), dtype=torch.uint8, generator=generator)
    pids = torch.arange(3)
    loader = [
        Batch(images[part], pids[part], pids[part], pids[part])
        for part in (slice(0, 2), slice(2, 3))
    ]
    results = []
    capture = Capture()
    monkeypatch.setattr(CapturedInference.__init__, "__defaults__", (capture,))
    for uses_graphs in (False, True):
        monkeypatch.setattr(evaluators, "uses_graphs", lambda device, on=uses_graphs: on)
        engine = create_evaluator(model, lambda x: x.float() / 255, device=CPU, flip=flip)
        accumulator = EmbeddingAccumulator()
        accumulator.attach(engine)
        engine.run(loader)
        results.append(accumulator.collect().embeddings)
    assert capture.sizes == [2]
    plain, fused = results
    assert not torch.equal(plain, fused)
    assert torch.allclose(plain, fused, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))
    # The model itself is unchanged.
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


def test_a_run_with_graphs_has_the_scores_of_one_without(tiny_run, train, tmp_path, monkeypatch):
    capture = Capture()
    monkeypatch.setattr(evaluators, "uses_graphs", lambda device: True)
    monkeypatch.setattr(CapturedInference.__init__, "__defaults__", (capture,))
    folder = train(tmp_path)
    ours, theirs = (
        json.loads((run / "results.json").read_text())["market1501"] for run in (folder, tiny_run)
    )
    assert ours == pytest.approx(theirs, abs=1e-6)
    # Two evaluations of 17 images in batches of 4.
    assert capture.sizes == [4, 4] and inference.capture_graph is not capture
