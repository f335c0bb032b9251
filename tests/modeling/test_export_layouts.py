"""Our weights become files of FastReID and torchreid, and convert back without a change."""

import pytest
import torch
from ember_reid.modeling.convert import convert_state_dict
from ember_reid.modeling.export_layouts import export_state_dict

from tests.helpers.foreign_layouts import fastreid, foreign_101, torchreid
from tests.helpers.models import build, randomize
from tests.modeling.test_convert import CASES

FUNCTIONS = (fastreid, foreign_101, torchreid)


@pytest.mark.parametrize(
    "layout, name, more, expected",
    [case[:4] for case in CASES if case[3] in FUNCTIONS],
    ids=[f"{case[0]}-{case[1]}-{case[4]}" for case in CASES if case[3] in FUNCTIONS],
)
def test_names_and_shapes_are_those_of_the_program(layout, name, more, expected, monkeypatch):
    state = build(name, device="meta", **more).state_dict()
    # Without values there is nothing to compare.
    monkeypatch.setattr(torch, "equal", lambda a, b: a.shape == b.shape)
    exported = export_state_dict(state, layout)
    wanted = expected(state)
    extra = {"classifier.bias"}
    assert exported.keys() - extra == wanted.keys() - extra
    assert all(exported[key].shape == tensor.shape for key, tensor in wanted.items())


def test_values_survive_the_way_there_and_back():
    osnet = {"EMBEDDING_DIM": 512, "REDUCTION": "bn_relu", "NECK": "none"}
    for layout, name, more in (
        ("fastreid", "resnet18", {}),
        ("torchreid", "osnet_x0_25", {f"MODEL__HEAD__{k}": v for k, v in osnet.items()}),
    ):
        model = build(name, **more).eval()
        randomize(model)
        state = model.state_dict()
        back = convert_state_dict(export_state_dict(state, layout)).tensors
        assert all(torch.equal(back[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize(
    ("layout", "name", "message"),
    [
        ("fastreid", "densenet121", "fastreid has no such network; supported: ResNet or ResNeSt"),
        ("torchreid", "osnet_x0_25", "torchreid has no such network; supported: OSNet with MODEL"),
        ("torchreid", "mobilenet_v2", "torchreid has no such network"),
    ],
)
def test_networks_that_a_program_does_not_have_are_refused(layout, name, message):
    with pytest.raises(ValueError, match=message):
        export_state_dict(build(name).state_dict(), layout)
