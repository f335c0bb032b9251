"""Functions that rename our tensors to the names of other programs."""

import re

import torch


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
    # Numbers 2 and 3 have no weights.
    if "conv0" in order:
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


def foreign_101(state):
    """In FastReID's ResNet-101, the nine non-local blocks follow blocks 14 to 22."""
    return fastreid(
        {
            re.sub(r"(layer3\.nl)(\d+)", lambda m: f"{m[1]}{int(m[2]) + 6}", k): v
            for k, v in state.items()
        }
    )
