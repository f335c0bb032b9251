"""Converting checkpoints of other programs: ours are renamed to theirs and converted back."""

import logging
import re

import pytest
import torch
from ember_reid.modeling import load_weights
from ember_reid.modeling.convert import LAYOUTS, convert_backbone, convert_state_dict, detect_layout

from tests.modeling.models import build, randomize

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


def substitute(name, *pairs):
    for pattern, replacement in pairs:
        name = re.sub(pattern, replacement, name)
    return name


def fastreid(state, *, of_2020=False):
    """Renames to FastReID's current names, or to those of its model zoo of 2020."""
    first = {"layer2": 2, "layer3": 20 if "backbone.layer3.22.conv1.weight" in state else 3}
    neck, classifier = ("bnneck", "classifier.weight") if of_2020 else ("bottleneck.0", "weight")
    reduced = any("reduction" in k for k in state)
    out = (
        {"pixel_mean": torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)} if of_2020 else {}
    )
    for name, tensor in state.items():
        if m := re.match(r"backbone\.(layer[23])\.nl(\d+)\.(.*)", name):
            name = f"backbone.NL_{m[1][-1]}.{int(m[2]) - first[m[1]]}.{m[3]}"
        if name.endswith("reduction.0.weight"):
            tensor = tensor[:, :, None, None]
        if "branches" in name or "parts" in name or "parts" in "".join(state):
            name = substitute(
                name,
                (r"^backbone\.conv1\.", "backbone.0."),
                (r"^backbone\.bn1\.", "backbone.1."),
                (r"^backbone\.layer1\.", "backbone.4."),
                (r"^backbone\.layer2\.", "backbone.5."),
                (r"^backbone\.layer3\.0\.", "backbone.6."),
            )
            if m := re.match(r"backbone\.branches\.(\d)\.layer(\d)\.(\d)\.(.*)", name):
                place = f"0.{int(m[3]) - 1}" if m[2] == "3" else f"1.{m[3]}"
                name = f"b{int(m[1]) + 1}.{place}.{m[4]}"
            if of_2020:
                name = substitute(
                    name,
                    (r"^head\.parts\.(b\d+)\.pool\.", r"\1_pool.0."),
                    (r"^head\.parts\.(b\d+)\.reduction\.0\.", r"\1_pool.1."),
                    (r"^head\.parts\.(b\d+)\.reduction\.1\.", r"\1_pool.2."),
                )
            name = re.sub(r"^head\.parts\.(b\d+)\.", r"\1_head.", name)
        name = substitute(
            name,
            (r"^head\.", "heads."),
            (r"\.pool\.p$", ".pool_layer.p"),
            (r"\.classifier\.weight$", f".{classifier}"),
            (r"\.neck\.", ".bottleneck.1." if reduced and not of_2020 else f".{neck}."),
            (r"\.reduction\.0\.", ".bottleneck.0."),
        )
        out[name] = tensor
    return out


def strong_baseline(state):
    renamed = {}
    for name, tensor in state.items():
        if ".se.fc1.weight" in "".join(state):
            name = substitute(
                name,
                (r"^backbone\.(conv1|bn1)\.", r"backbone.layer0.\1."),
                (r"\.se\.", ".se_module."),
            )
        name = substitute(
            name,
            ("^backbone", "base"),
            (r"^head\.neck", "bottleneck"),
            (r"^head\.classifier", "classifier"),
        )
        renamed[name] = tensor
    return renamed


def vkd_resnet(state):
    bam = {
        "channel.0": "channel_att.gate_c.gate_c_fc_0",
        "channel.1": "channel_att.gate_c.gate_c_bn_1",
    }
    bam["channel.3"] = "channel_att.gate_c.gate_c_fc_final"
    places = (
        "conv_reduce0",
        "bn_reduce0",
        "",
        "conv_di_0",
        "bn_di_0",
        "",
        "conv_di_1",
        "bn_di_1",
        "",
        "conv_final",
    )
    bam |= {f"spatial.{i}": f"spatial_att.gate_s.gate_s_{name}" for i, name in enumerate(places)}
    renamed = {}
    for name, tensor in state.items():
        if m := re.match(r"(.*\.bam\.)(\w+\.\d)\.(.*)", name):
            name = f"{m[1]}{bam[m[2]]}.{m[3]}"
        name = substitute(
            name,
            (r"^backbone\.conv1\.", "backbone.features_layers.0.0."),
            (r"^backbone\.bn1\.", "backbone.features_layers.0.1."),
            (r"^backbone\.layer(\d)\.", r"backbone.features_layers.\1.0."),
            (r"^head\.neck", "classifier.bottleneck"),
            (r"^head\.classifier", "classifier.classifier"),
        )
        renamed[name] = tensor
    return renamed


def vkd_features(state):
    """MobileNet and DenseNet: VKD numbers the children of torchvision's `features`."""
    order = list(
        dict.fromkeys(k.split(".")[2] for k in state if k.startswith("backbone.features."))
    )
    if "conv0" in order:  # numbers 2 and 3 have no weights
        order[2:2] = ["relu0", "pool0"]
    renamed = {}
    for name, tensor in state.items():
        if m := re.match(r"backbone\.features\.(\w+)\.(.*)", name):
            name = f"backbone.features_layers.{order.index(m[1])}.{m[2]}"
        name = substitute(
            name,
            (r"^head\.neck", "classifier.bottleneck"),
            (r"^head\.classifier", "classifier.classifier"),
        )
        renamed[name] = tensor
    return renamed


def torchreid(state):
    ain = any(re.fullmatch(r"backbone\.conv2\.0\.conv3\.bn\.weight", k) for k in state) and not any(
        "backbone.conv2.0.conv3.bn.running_mean" == k for k in state
    )
    renamed = {}
    for name, tensor in state.items():
        if ain and re.match(r"backbone\.conv[234]\.\d\.conv3\.bn", name):
            block = name.rsplit(".bn.", 1)[0]
            name = (
                name.replace("conv3.bn", "IN") if f"{block}.bn.running_mean" not in state else name
            )
        if m := re.match(r"(backbone\.conv[234]\.\d)\.conv2\.(\d)\.(\d)\.(.*)", name):
            stream = "abcd"[int(m[2])]
            plain = f"conv2{stream}.{m[4]}" if stream == "a" else f"conv2{stream}.{m[3]}.{m[4]}"
            name = f"{m[1]}." + (f"conv2.{m[2]}.layers.{m[3]}.{m[4]}" if ain else plain)
        if not ain:
            name = re.sub(r"^backbone\.pool([23])\.0\.", r"backbone.conv\1.2.0.", name)
        name = substitute(
            name,
            (r"^head\.reduction\.", "fc."),
            (r"^head\.classifier", "classifier"),
            (r"^backbone\.", ""),
        )
        renamed[name] = tensor
    renamed["fc.0.bias"] = torch.zeros(512, device=renamed["fc.0.weight"].device)
    return renamed


# layout, backbone, overrides, function that renames, published number of tensors (None: unknown)
CASES = [
    ("fastreid", "resnet50", {}, fastreid, 324),
    ("fastreid", "resnet50_ibn_a", {}, fastreid, 350),
    ("fastreid", "resnet50", SBS, fastreid, 390),
    (
        "fastreid",
        "resnet101_ibn_a",
        {**SBS, "MODEL__BACKBONE__NON_LOCAL": "(0, 2, 9, 0)"},
        None,
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


def foreign_101(state):
    """In FastReID's ResNet-101, the nine non-local blocks follow blocks 14 to 22."""
    return fastreid(
        {
            re.sub(r"(layer3\.nl)(\d+)", lambda m: f"{m[1]}{int(m[2]) + 6}", k): v
            for k, v in state.items()
        }
    )


@pytest.mark.parametrize(
    "layout, name, more, rename, count", CASES, ids=[f"{c[0]}-{c[1]}-{c[4]}" for c in CASES]
)
def test_every_tensor_is_converted_back(layout, name, more, rename, count):
    model = build(name, device="meta", **more)
    state = model.state_dict()
    foreign = (rename or foreign_101)(state)
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
    assert len(unchanged) >= len(state) - 40  # the others were reshaped


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
    model.head.reduction[0].bias = torch.nn.Parameter(bias)  # as torchreid computes it
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
