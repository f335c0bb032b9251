"""Converting checkpoints of other programs: ours are renamed to theirs and converted back."""

import logging

import pytest
import torch
from ember_reid.modeling import load_weights
from ember_reid.modeling.convert import LAYOUTS, convert_backbone, convert_state_dict, detect_layout

from tests.helpers.foreign_layouts import (
    fastreid,
    foreign_101,
    strong_baseline,
    torchreid,
    vkd_features,
    vkd_resnet,
)
from tests.helpers.models import build, randomize

SBS = {
    "MODEL__POOL__NAME": "gem",
    "MODEL__HEAD__CLASSIFIER": "cosine",
    "MODEL__BACKBONE__NON_LOCAL": "(0, 2, 3, 0)",
    "MODEL__BACKBONE__NON_LOCAL_WIDTH": 1,
}
MGN = {
    "MODEL__HEAD__NAME": "mgn",
    "MODEL__HEAD__EMBEDDING_DIM": 256,
    "MODEL__POOL__NAME": "gem",
    "MODEL__HEAD__CLASSIFIER": "cosine",
}
OSNET = {
    "MODEL__HEAD__EMBEDDING_DIM": 512,
    "MODEL__HEAD__REDUCTION": "bn_relu",
    "MODEL__HEAD__NECK": "none",
}


# layout, backbone, overrides, function that renames, published number of tensors (None: unknown)
CASES = [
    ("fastreid", "resnet50", {}, fastreid, 324),
    ("fastreid", "resnet50_ibn_a", {}, fastreid, 350),
    ("fastreid", "resnet50", SBS, fastreid, 390),
    (
        "fastreid",
        "resnet101_ibn_a",
        {**SBS, "MODEL__BACKBONE__NON_LOCAL": "(0, 2, 9, 0)"},
        foreign_101,
        834,
    ),
    ("fastreid", "resnest50", {**SBS, "MODEL__BACKBONE__NON_LOCAL": "()"}, fastreid, 481),
    ("fastreid", "resnet50_ibn_a", MGN, fastreid, 728),
    ("fastreid", "resnet50", SBS, lambda state: fastreid(state, of_2020=True), 391),
    (
        "fastreid",
        "resnet50_ibn_a",
        {**MGN, "MODEL__HEAD__REDUCTION": "bn_relu"},
        lambda state: fastreid(state, of_2020=True),
        769,
    ),
    ("strong-baseline", "resnet50", {}, strong_baseline, None),
    ("strong-baseline", "se_resnext50", {}, strong_baseline, None),
    ("strong-baseline", "resnet50_ibn_a", {}, strong_baseline, None),
    ("vkd", "resnet34", {}, vkd_resnet, None),
    ("vkd", "resnet50_bam", {}, vkd_resnet, None),
    ("vkd", "mobilenet_v2", {}, vkd_features, None),
    ("vkd", "densenet121", {}, vkd_features, None),
    ("torchreid", "osnet_x0_25", OSNET, torchreid, None),
    ("torchreid", "osnet_ain_x1_0", OSNET, torchreid, None),
]


@pytest.mark.parametrize(
    "layout, name, more, rename, count", CASES, ids=[f"{c[0]}-{c[1]}-{c[4]}" for c in CASES]
)
def test_every_tensor_is_converted_back(layout, name, more, rename, count):
    model = build(name, device="meta", **more)
    state = model.state_dict()
    foreign = rename(state)
    assert count is None or len(foreign) == count
    assert not set(foreign) & {k for k in state if k.startswith(("head.", "backbone.branches"))}
    assert detect_layout(foreign) == layout
    converted = convert_state_dict(foreign)
    assert converted.layout == layout
    assert set(converted.tensors) == set(state)
    assert all(converted.tensors[k].shape == v.shape for k, v in state.items())
    converted_names = {id(tensor): k for k, tensor in converted.tensors.items()}
    unchanged = [k for k, tensor in state.items() if id(tensor) in converted_names]
    assert all(converted_names[id(state[k])] == k for k in unchanged)
    # The others were reshaped.
    assert len(unchanged) >= len(state) - 40


def test_our_checkpoints_are_not_recognized_as_foreign():
    for name, more in (
        ("resnet50", {}),
        ("resnet50", MGN),
        ("osnet_x0_25", OSNET),
        ("mobilenet_v2", {}),
    ):
        state = build(name, device="meta", **more).state_dict()
        assert detect_layout(state) == ""
        assert convert_state_dict(state).tensors.keys() == state.keys()


def test_the_bias_of_a_reduction_is_absorbed_by_batch_norm(tmp_path):
    model = build("osnet_x0_25", **OSNET).eval()
    randomize(model)
    bias = torch.randn(512)
    foreign = torchreid(model.state_dict())
    foreign["fc.0.bias"] = bias
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in foreign.items()}, "rank1": 0.9},
        tmp_path / "osnet.pth.tar",
    )
    other = build("osnet_x0_25", **OSNET).eval()
    load_weights(other, tmp_path / "osnet.pth.tar")
    # As torchreid computes it.
    model.head.reduction[0].bias = torch.nn.Parameter(bias)
    images = torch.rand(2, 3, 64, 32)
    with torch.inference_mode():
        torch.testing.assert_close(
            other(images).embedding, model(images).embedding, rtol=1e-4, atol=1e-5
        )


def test_linear_gates_without_bias_become_convolutions_with_bias():
    weights = {
        "layer1.0.se.fc.0.weight": torch.ones(4, 64),
        "layer1.0.se.fc.2.weight": torch.ones(64, 4),
    }
    converted = convert_backbone(weights)
    assert {k: tuple(v.shape) for k, v in converted.items()} == {
        "layer1.0.se.fc1.weight": (4, 64, 1, 1),
        "layer1.0.se.fc1.bias": (4,),
        "layer1.0.se.fc2.weight": (64, 4, 1, 1),
        "layer1.0.se.fc2.bias": (64,),
    }
    assert converted["layer1.0.se.fc1.bias"].abs().sum() == 0


def test_old_densenet_names_are_converted():
    weights = {
        "features.denseblock1.denselayer1.norm.1.weight": torch.ones(64),
        "features.norm0.bias": torch.ones(64),
    }
    assert set(convert_backbone(weights)) == {
        "features.denseblock1.denselayer1.norm1.weight",
        "features.norm0.bias",
    }


def test_a_constant_exponent_is_filled_in_if_the_model_has_one():
    foreign = {"heads.bottleneck.0.weight": torch.ones(4)}
    assert "head.pool.p" not in convert_state_dict(foreign).tensors
    assert convert_state_dict(foreign, model_names=["head.pool.p"]).tensors[
        "head.pool.p"
    ].tolist() == [3.0]
    learned = convert_state_dict(
        {**foreign, "heads.pool_layer.p": torch.tensor([2.5])}, model_names=["head.pool.p"]
    )
    assert learned.tensors["head.pool.p"].tolist() == [2.5]


@pytest.mark.parametrize(
    "names, layout, key, value",
    [
        (["heads.weight", "backbone.conv1.weight"], "auto", "MODEL.BACKBONE.STEM_POOL", "ceil"),
        (
            ["heads.bnneck.weight", "backbone.conv1.weight"],
            "auto",
            "MODEL.BACKBONE.STEM_POOL",
            "padded",
        ),
        (["heads.weight", "backbone.conv1.6.weight"], "auto", "MODEL.BACKBONE.LAST_DILATION", 2),
        (
            ["heads.bnneck.weight", "backbone.conv1.6.weight"],
            "auto",
            "MODEL.BACKBONE.LAST_DILATION",
            1,
        ),
        (["base.conv1.weight"], "auto", "MODEL.BACKBONE.STEM_RELU", False),
        (["base.layer1.0.bn1.IN.weight"], "auto", "MODEL.BACKBONE.STEM_RELU", True),
        (["base.conv1.weight"], "syncbn", "MODEL.BACKBONE.STEM_RELU", True),
        (["base.conv1.weight"], "syncbn", "INPUT.PIXEL_MEAN", (0.5, 0.5, 0.5)),
        (["backbone.features_layers.0.0.weight"], "auto", "MODEL.BACKBONE.LAST_RELU", False),
        (["backbone.features_layers.0.0.weight"], "auto", "TEST.NECK_FEAT", "before"),
        (["conv1.conv.weight", "classifier.weight"], "auto", "MODEL.HEAD.NECK", "none"),
    ],
)
def test_each_layout_has_the_settings_of_its_program(names, layout, key, value):
    converted = convert_state_dict({name: torch.ones(1) for name in names}, layout=layout)
    assert converted.settings[key] == value


def test_differing_settings_are_logged(tmp_path, caplog):
    model = build("resnet18")
    torch.save({"model": fastreid(model.state_dict())}, tmp_path / "model_final.pth")
    with caplog.at_level(logging.INFO, "ember"):
        report = load_weights(build("resnet18"), tmp_path / "model_final.pth")
    assert report.missing == report.unexpected == report.mismatched == ()
    assert "made with MODEL.BACKBONE.STEM_POOL ceil, the configuration has padded" in caplog.text
    assert "made with INPUT.INTERPOLATION bicubic, the configuration has bilinear" in caplog.text
    assert "(layout: fastreid): 126 tensors fit" in caplog.text


def test_a_foreign_file_of_another_architecture_names_its_layout(tmp_path):
    torch.save(
        {"model": fastreid(build("resnet50", device="cpu", **MGN).state_dict())},
        tmp_path / "mgn.pth",
    )
    with pytest.raises(
        ValueError,
        match="another architecture .its layout is that of fastreid, which needs .*tensors fit",
    ):
        load_weights(build("resnet18"), tmp_path / "mgn.pth")


def test_an_unknown_layout_lists_the_choices():
    with pytest.raises(
        ValueError, match=f"layout is 'bot'; choose one of auto, {', '.join(LAYOUTS)}"
    ):
        convert_state_dict({}, layout="bot")
