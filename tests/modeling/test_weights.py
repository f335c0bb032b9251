import logging
import pickle

import numpy as np
import pytest
import torch
import torchvision
from ember_reid.config import load_config
from ember_reid.modeling import check_model, load_weights
from ember_reid.modeling.weight_files import find_state_dict, read_checkpoint

from tests.helpers.models import build, randomize


@pytest.fixture(scope="module")
def model():
    model = build("resnet18")
    randomize(model)
    return model


def equal(a, b):
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


@pytest.mark.parametrize("wrap", ["model", "state_dict", "net", "", "module.", "both"])
def test_wrappers_and_prefixes_are_removed(model, wrap, tmp_path):
    state = model.state_dict()
    if wrap in ("module.", "both"):
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    content = (
        {"model" if wrap == "both" else wrap: state, "epoch": 3}
        if wrap not in ("", "module.")
        else state
    )
    torch.save(content, tmp_path / "weights.pt")
    other = build("resnet18")
    report = load_weights(other, tmp_path / "weights.pt")
    assert equal(model, other)
    assert len(report.loaded) == len(model.state_dict())
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())


def test_a_classifier_of_other_identities_is_not_loaded(model, tmp_path, caplog):
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = build("resnet18", num_classes=9)
    classifier = other.head.classifier.weight.clone()
    with caplog.at_level(logging.WARNING, "ember"):
        report = load_weights(other, tmp_path / "weights.pt")
    assert (
        report.mismatched == ("head.classifier.weight",)
        and report.missing == report.unexpected == ()
    )
    assert torch.equal(other.head.classifier.weight, classifier)
    assert torch.equal(other.backbone.conv1.weight, model.backbone.conv1.weight)
    assert "tensors fit, 1 of another shape (head.classifier.weight)" in caplog.text


def test_classifiers_and_batch_counters_may_be_missing(model, tmp_path):
    state = {
        k: v
        for k, v in model.state_dict().items()
        if "classifier" not in k and "num_batches" not in k
    }
    torch.save(state, tmp_path / "weights.pt")
    assert load_weights(build("resnet18"), tmp_path / "weights.pt").missing == (
        "head.classifier.weight",
    )


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "mobilenet_v2"])
def test_another_architecture_is_refused_and_changes_nothing(model, name, tmp_path):
    torch.save(build(name).state_dict(), tmp_path / "weights.pt")
    other = build("resnet18")
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"is of another architecture: \d+ tensors fit, .*unexpected \("
    ):
        load_weights(other, tmp_path / "weights.pt")
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())


def test_imagenet_weights_are_recognized(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(
        ValueError, match="it looks like ImageNet weights; set MODEL.BACKBONE.WEIGHTS to this file"
    ):
        load_weights(build("resnet18"), tmp_path / "resnet18.pth")


def test_numpy_numbers_and_arrays_are_read(model, tmp_path):
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    torch.save(
        {"model": state, "rank1": np.float64(0.9), "epoch": np.int64(3)}, tmp_path / "weights.pt"
    )
    other = build("resnet18")
    load_weights(other, tmp_path / "weights.pt")
    assert equal(model, other)


def test_a_file_that_would_execute_code_is_refused(tmp_path):
    # A pickled module.
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(ValueError, match="loading it would execute code: .*Linear"):
        read_checkpoint(tmp_path / "module.pt")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint at all",
        pickle.dumps([1, 2], protocol=2),
        pickle.dumps([1], protocol=4),
    ],
)
def test_files_of_other_kinds_are_refused(content, tmp_path):
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(
        ValueError, match="weights.pt (is damaged or not a torch file|is not read|contains no)"
    ) as error:
        find_state_dict(read_checkpoint(tmp_path / "weights.pt"), tmp_path / "weights.pt")
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    whole = (tmp_path / "weights.pt").read_bytes()
    (tmp_path / "weights.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=rf"is damaged or not a torch file \({len(whole) // 2} bytes\)"
    ):
        load_weights(build("resnet18"), tmp_path / "weights.pt")


def test_missing_files_and_files_without_tensors_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="weight file .*nowhere.pt does not exist"):
        read_checkpoint(tmp_path / "nowhere.pt")
    torch.save({"epoch": 3, "config": "SEED: 1"}, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match="contains no state dict; found the keys epoch, config"):
        load_weights(build("resnet18"), tmp_path / "empty.pt")


def test_architecture_settings_of_file_and_model_are_compared(model, tmp_path, caplog):
    config = (
        "MODEL: {BACKBONE: {STEM_RELU: false}}\n"
        "INPUT: {SIZE_TEST: [384, 128], PIXEL_MEAN: [0.485, 0.456, 0.406]}"
    )
    torch.save({"config": config, "model": model.state_dict()}, tmp_path / "weights.pt")
    load_weights(build("resnet18"), tmp_path / "weights.pt")
    logged = [
        record.getMessage() for record in caplog.records if "was made with" in record.getMessage()
    ]
    assert [text.partition("was made with ")[2] for text in logged] == [
        "MODEL.BACKBONE.STEM_RELU False, the configuration has True",
        "INPUT.SIZE_TEST (384, 128), the configuration has (256, 128)",
    ]


@pytest.mark.parametrize(
    "error",
    [OSError("Name or service not known"), RuntimeError("invalid hash value")],
    ids=["offline", "hash"],
)
def test_a_failed_download_suggests_alternatives(error, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(ValueError, match="WEIGHTS to none .* or to a local file") as caught:
        build("resnet18", MODEL__BACKBONE__WEIGHTS="imagenet")
    assert str(error) in str(caught.value) and "resnet18" in str(caught.value)


def test_unsuitable_backbone_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no ImageNet weights for osnet_x0_25 to download"):
        build("osnet_x0_25", MODEL__BACKBONE__WEIGHTS="imagenet")
    with pytest.raises(
        FileNotFoundError, match="which is not a file; give imagenet .*, none or a weight file"
    ):
        build("resnet18", MODEL__BACKBONE__WEIGHTS=tmp_path / "nowhere.pth")
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "resnet34.pth")
    with pytest.raises(
        ValueError,
        match=r"is of another architecture or incomplete: 120 tensors fit, \d+ unexpected",
    ):
        build("resnet18", MODEL__BACKBONE__WEIGHTS=tmp_path / "resnet34.pth")


def test_check_model_raises_the_errors_of_build_model(tmp_path):
    for words, error, message in (
        (["MODEL.BACKBONE.NAME", "vgg"], ValueError, "choose one of resnet18"),
        (["MODEL.BACKBONE.WEIGHTS", "nowhere.pth"], FileNotFoundError, "which is not a file"),
        (
            ["MODEL.BACKBONE.NAME", "osnet_x0_5", "MODEL.BACKBONE.LAST_STRIDE", "2"],
            ValueError,
            "no ImageNet weights",
        ),
    ):
        with pytest.raises(error, match=message):
            check_model(load_config(None, words))
    # Nothing is downloaded.
    check_model(load_config(None, ["MODEL.BACKBONE.NAME", "resnet152"]))


def test_plain_weights_initialize_networks_with_additional_modules(tmp_path):
    plain = torchvision.models.resnet50()
    torch.save(plain.state_dict(), tmp_path / "resnet50.pth")
    for name, more in (
        ("resnet50_bam", {}),
        ("resnet50", {"MODEL__BACKBONE__NON_LOCAL": "(0, 2, 3, 0)"}),
    ):
        model = build(name, MODEL__BACKBONE__WEIGHTS=tmp_path / "resnet50.pth", **more)
        assert torch.equal(model.backbone.layer4[2].conv3.weight, plain.layer4[2].conv3.weight)
