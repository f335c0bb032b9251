import pytest
import torch
import torchvision
from ember_reid.modeling import BackboneOptions, create_backbone
from ember_reid.modeling.mgn import MGNHead
from ember_reid.modeling.model import HeadOptions

from tests.helpers.models import NAMES, build, fill, randomize

MGN = {"MODEL__HEAD__NAME": "mgn", "MODEL__HEAD__EMBEDDING_DIM": 16, "MODEL__POOL__NAME": "gem"}
PAIRS = [(name, {}) for name in NAMES] + [
    (name, MGN) for name in ("resnet50", "resnet50_ibn_a", "se_resnext50")
]
IDS = [name + ("-mgn" if more else "") for name, more in PAIRS]


def total(output):
    return sum(x.square().sum() for x in (output.embedding, *output.logits, *output.features))


@pytest.mark.parametrize("name, more", PAIRS, ids=IDS)
def test_gradients_and_shapes_of_every_backbone_and_head(name, more):
    torch.manual_seed(0)
    model = fill(build(name, device="meta", **more))
    output = model(torch.randn(2, 3, 48 if more else 32, 32))
    total(output).backward()
    trained = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(grad is not None and torch.isfinite(grad).all() for grad in trained.values())
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert all(n.endswith("neck.bias") for n in frozen) and len(frozen) == len(output.logits)

    dim = 8 * 16 if more else model.backbone.channels[-1]
    model.zero_grad()
    model.to("meta").eval().return_maps = True
    for height, width in ((256, 128), (384, 128), (224, 224)):
        with torch.inference_mode():
            output = model(torch.empty(2, 3, height, width, device="meta"))
        assert output.embedding.shape == (2, dim)
        assert [logits.shape for logits in output.logits] == [(2, 5)] * (8 if more else 1)
        assert len(output.features) == (5 if more else 1)
        assert [m.shape[1] for m in output.maps] == list(model.backbone.channels)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "densenet121"])
def test_features_with_torchvision_weights_equal_torchvision(name, tmp_path):
    reference = getattr(torchvision.models, name)()
    randomize(reference)
    torch.save(reference.state_dict(), tmp_path / "imagenet.pth")
    model = build(
        name,
        MODEL__BACKBONE__WEIGHTS=tmp_path / "imagenet.pth",
        MODEL__BACKBONE__LAST_STRIDE=2,
        TEST__NECK_FEAT="before",
    )
    last = [
        m for m in reference.children() if isinstance(m, torch.nn.Linear | torch.nn.Sequential)
    ][-1]
    pooled = []
    last.register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0]))
    images = torch.rand(2, 3, 64, 32)
    with torch.inference_mode():
        reference.eval()(images)
        torch.testing.assert_close(model.eval()(images).embedding, pooled[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50_ibn_a", "se_resnet50", "resnest50", "mobilenet_v2"]
)
def test_last_stride_doubles_the_last_map_only(name):
    with torch.device("meta"):
        images = torch.empty(1, 3, 256, 128)
        one = create_backbone(name, BackboneOptions(last_stride=1)).eval()(images)
        two = create_backbone(name, BackboneOptions(last_stride=2)).eval()(images)
    assert [m.shape for m in one[:-1]] == [m.shape for m in two[:-1]]
    assert one[-1].shape[2:] == (16, 8) and two[-1].shape[2:] == (8, 4)


def test_stem_settings_change_the_output():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 64, 32)
    plain = create_backbone("resnet18", BackboneOptions()).eval()
    for settings in ({"stem_relu": False}, {"stem_pool": "ceil"}, {"last_relu": False}):
        other = create_backbone("resnet18", BackboneOptions(**settings)).eval()
        other.load_state_dict(plain.state_dict())
        assert [a.shape for a in other(images)] == [a.shape for a in plain(images)]
        assert not torch.equal(other(images)[-1], plain(images)[-1])


def test_without_the_last_relu_features_are_signed():
    maps = create_backbone("resnet18", BackboneOptions(last_relu=False))(torch.randn(2, 3, 64, 32))
    assert maps[-1].min() < 0 and maps[-2].min() >= 0


def test_new_non_local_blocks_are_the_identity_and_follow_the_last_blocks():
    torch.manual_seed(0)
    plain = create_backbone("resnet50", BackboneOptions()).eval()
    attentive = create_backbone(
        "resnet50", BackboneOptions(non_local=(0, 2, 3, 0), non_local_width=1)
    ).eval()
    attentive.load_state_dict(plain.state_dict(), strict=False)
    assert [n for n, _ in attentive.layer2.named_children()] == ["0", "1", "2", "nl2", "3", "nl3"]
    assert [n for n, _ in attentive.layer3.named_children() if "nl" in n] == ["nl3", "nl4", "nl5"]
    images = torch.randn(1, 3, 64, 32)
    with torch.inference_mode():
        torch.testing.assert_close(attentive(images)[-1], plain(images)[-1])


def test_a_clip_is_the_mean_of_its_frames():
    model = build("resnet18").eval()
    # Two clips of three frames.
    clips = torch.randn(2, 3, 3, 64, 32)
    with torch.inference_mode():
        output = model(clips)
        frames = [model(clips[:, t]) for t in range(3)]
    for value, parts in (
        (output.embedding, [f.embedding for f in frames]),
        (output.logits[0], [f.logits[0] for f in frames]),
        (output.features[0], [f.features[0] for f in frames]),
    ):
        torch.testing.assert_close(value, torch.stack(parts).mean(dim=0), rtol=1e-4, atol=1e-5)


def test_maps_are_returned_only_if_return_maps_is_set():
    model = build("resnet18", device="meta")
    assert model(torch.empty(2, 3, 64, 32, device="meta")).maps == ()
    model.return_maps = True
    maps = model(torch.empty(2, 4, 3, 64, 32, device="meta")).maps
    assert [tuple(m.shape) for m in maps] == [
        (8, 64, 16, 8),
        (8, 128, 8, 4),
        (8, 256, 4, 2),
        (8, 512, 4, 2),
    ]


def test_features_and_embedding_are_taken_before_or_after_the_neck():
    torch.manual_seed(0)
    images = torch.randn(4, 3, 64, 32)
    model = build("resnet18", TEST__NECK_FEAT="after", MODEL__HEAD__METRIC_FEATURE="before").eval()
    randomize(model.head)
    other = build("resnet18", TEST__NECK_FEAT="before", MODEL__HEAD__METRIC_FEATURE="after").eval()
    other.load_state_dict(model.state_dict())
    with torch.inference_mode():
        a, b = model(images), other(images)
        after = model.head.neck(a.features[0])
    assert torch.equal(a.embedding, b.features[0]) and torch.equal(a.features[0], b.embedding)
    assert torch.equal(a.embedding, after) and not torch.equal(a.embedding, b.embedding)


def test_without_a_neck_the_classifier_has_a_bias():
    model = build("resnet18", MODEL__HEAD__NECK="none")
    assert model.head.classifier.bias is not None
    assert not hasattr(model.head.neck, "weight")
    assert build("resnet18").head.classifier.bias is None


def test_cosine_logits_are_bounded_by_the_scale():
    model = build("resnet18", MODEL__HEAD__CLASSIFIER="cosine", MODEL__HEAD__SCALE=10.0)
    logits = model(torch.randn(4, 3, 64, 32)).logits[0]
    assert logits.abs().max() <= 10.0 + 1e-4


def test_the_head_computes_in_float32_under_autocast():
    model = build("resnet18")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.randn(4, 3, 64, 32))
    assert {output.embedding.dtype, output.logits[0].dtype, output.features[0].dtype} == {
        torch.float32
    }


def test_reductions_change_the_dimension_of_the_embedding():
    for reduction, modules in (("linear", 1), ("bn_relu", 3)):
        model = build("resnet18", MODEL__HEAD__EMBEDDING_DIM=32, MODEL__HEAD__REDUCTION=reduction)
        output = model(torch.randn(4, 3, 64, 32))
        assert output.embedding.shape == (4, 32) and output.logits[0].shape == (4, 5)
        assert len(model.head.reduction) == modules


def test_mgn_divides_maps_into_halves_and_thirds():
    head = MGNHead(2, 3, HeadOptions()).eval()
    rows = torch.arange(6.0).view(1, 1, 6, 1).expand(1, 2, 6, 1)
    output = head((rows, 10 + rows, 100 + rows))
    # Means of rows 0..5, their halves and their thirds; untrained necks are the identity.
    expected = [2.5, 12.5, 102.5, 11, 14, 100.5, 102.5, 104.5]
    assert output.embedding[0, ::2].tolist() == pytest.approx(expected, rel=1e-4)
    assert [f.shape[1] for f in output.features] == [2, 2, 2, 4, 6]


def test_branches_of_mgn_start_equal_and_only_the_first_keeps_the_last_stride():
    model = build("resnet50", MODEL__BACKBONE__LAST_STRIDE=2, **MGN)
    first, second, third = model.backbone.branches
    assert torch.equal(first.layer4[0].conv2.weight, third.layer4[0].conv2.weight)
    assert first.layer4[0].conv2.weight is not second.layer4[0].conv2.weight
    shapes = [m.shape[2:] for m in model.backbone(torch.zeros(2, 3, 96, 32))[-3:]]
    assert shapes == [(3, 1), (6, 2), (6, 2)]


@pytest.mark.parametrize(
    "more, message",
    [
        ({"MODEL__BACKBONE__NAME": "resnet18_ibn_b"}, "did you mean resnet18_ibn_a"),
        (
            {"MODEL__BACKBONE__NAME": "vgg"},
            "'vgg'; choose one of resnet18, .* or timm:<name of a timm model>",
        ),
        ({"MODEL__BACKBONE__WIDTH": 0.3}, "choose a multiple of 1/32 between 0.125 and 2"),
        (
            {"MODEL__BACKBONE__NAME": "se_resnext50", "MODEL__BACKBONE__WIDTH": 0.125},
            "WIDTH is 0.125, which gives convolutions of 16 channels in 32 groups; choose a mult",
        ),
        (MGN, "MODEL.HEAD.NAME is 'mgn', which needs a ResNet with bottlenecks"),
        ({**MGN, "MODEL__BACKBONE__NAME": "resnest50"}, "which needs a ResNet with bottlenecks"),
        (
            {
                **MGN,
                "MODEL__BACKBONE__NAME": "resnet50",
                "MODEL__BACKBONE__NON_LOCAL": "(0, 2, 3, 0)",
            },
            "which does not support non-local blocks",
        ),
    ],
)
def test_impossible_combinations_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        build("resnet18", device="meta", **more)


def test_an_image_without_a_batch_dimension_is_refused():
    with pytest.raises(ValueError, match=r"images have shape \(3, 64, 32\); expected"):
        build("resnet18", device="meta")(torch.empty(3, 64, 32))


def test_maps_less_than_three_high_are_refused():
    with pytest.raises(ValueError, match="divides maps into 3 parts, but they are 2 high"):
        build("resnet50", device="meta", **MGN)(torch.empty(1, 3, 32, 32, device="meta"))
