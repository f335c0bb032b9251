from functools import partial

import pytest
import torch
from ember_reid.data.batch import Batch
from ember_reid.engine.distill.losses.feature import FeatureLoss
from ember_reid.engine.distill.losses.outputs import (
    EmbeddingLoss,
    create_embedding_pair_loss,
    create_feature_pair_loss,
    create_logit_loss,
)
from ember_reid.engine.distill.losses.self_distillation import SelfDistillationLoss
from ember_reid.engine.distill.teachers.class_mapping import ClassMapping, match_classes
from ember_reid.engine.distill.teachers.stage_features import StageFeatureHooks, last_blocks
from ember_reid.engine.distill.teachers.teacher import Teacher
from ember_reid.layers import distance_matching, kd_divergence, relational_distances
from ember_reid.modeling.adapters import AttentionAdapter
from ember_reid.modeling.backbones import BackboneOptions, create_backbone
from ember_reid.modeling.model import GlobalHead, HeadOptions, ReidModel
from ember_reid.modeling.output import ReidOutput
from torch import nn


def make_output(num_classes=5, dim=4, batch=3, heads=1) -> ReidOutput:
    return ReidOutput(
        embedding=torch.randn(batch, dim),
        logits=tuple(torch.randn(batch, num_classes) for _ in range(heads)),
        features=(torch.randn(batch, dim),),
    )


def make_batch(*teachers, size=3) -> Batch:
    numbers = torch.arange(size)
    return Batch(torch.zeros(size, 3, 8, 8), numbers, numbers, numbers, teachers)


def make_resnet(name="resnet18") -> ReidModel:
    backbone = create_backbone(name, BackboneOptions())
    return ReidModel(backbone, GlobalHead(backbone.channels[-1], 5, HeadOptions()))


def test_the_loss_of_equal_logits_is_zero():
    output = make_output()
    term = create_logit_loss(
        partial(kd_divergence, temperature=16.0, symmetric=True), [ClassMapping(), ClassMapping()]
    )
    assert term(output, make_batch(output, output)).item() == pytest.approx(0, abs=1e-6)


def test_the_logit_loss_is_the_mean_over_teachers_and_heads():
    student, one, two = make_output(heads=2), make_output(heads=2), make_output(heads=1)
    divergence = partial(kd_divergence, temperature=4.0, symmetric=True)
    value = create_logit_loss(divergence, [ClassMapping()] * 2)(
        student, make_batch(one, two)
    ).item()
    by_hand = [divergence(student.logits[i], one.logits[i]).item() for i in range(2)]
    by_hand += [divergence(student.logits[i], two.logits[0]).item() for i in range(2)]
    assert value == pytest.approx(sum(by_hand) / 4)


def test_logits_are_compared_over_common_identities():
    classes = match_classes(
        [("a", "1"), ("a", "2"), ("b", "1")], [("b", "1"), ("c", "9"), ("a", "1")], name="t.pt"
    )
    assert classes == ClassMapping(student=(0, 2), teacher=(2, 0))
    student, teacher = torch.tensor([[1.0, 9.0, 3.0]]), torch.tensor([[3.0, 7.0, 1.0]])
    own, other = classes.select(student, teacher)
    assert own.tolist() == other.tolist() == [[1.0, 3.0]]


def test_same_classes_need_no_selection():
    classes = [("a", "1"), ("a", "2")]
    assert match_classes(classes, [list(c) for c in classes], name="t") == ClassMapping()


def test_no_common_identities_are_refused():
    with pytest.raises(
        ValueError,
        match="t.pt was trained on 2 identities of duke .* with 0 in common; set KD.LOGITS",
    ):
        match_classes(
            [("market", "1"), ("market", "2")], [("duke", "1"), ("duke", "2")], name="t.pt"
        )


@pytest.mark.parametrize("create", [create_feature_pair_loss, create_embedding_pair_loss])
def test_pair_losses_are_means_over_teachers(create):
    student, one, two = make_output(), make_output(dim=6), make_output()
    term = create(distance_matching)
    values = [term(student, make_batch(t)).item() for t in (one, two)]
    assert term(student, make_batch(one, two)).item() == pytest.approx(sum(values) / 2)
    assert term(student, make_batch(student)).item() == 0


def test_embeddings_of_equal_width_need_no_projection_and_others_get_one():
    output = make_output(dim=4)
    term = EmbeddingLoss(4, [4])
    assert not list(term.parameters())
    assert term(output, make_batch(output)).item() == pytest.approx(0, abs=1e-6)
    projected = EmbeddingLoss(4, [6])
    assert projected(output, make_batch(make_output(dim=6))).item() >= 0
    assert [tuple(p.shape) for p in projected.parameters()] == [(6, 4)]


def test_hooks_keep_the_input_of_the_last_relu():
    model = make_resnet().eval()
    taps = StageFeatureHooks(model.backbone)
    images = torch.randn(2, 3, 32, 16)
    tapped = model.backbone(images)
    assert [m.shape for m in taps.maps] == [m.shape for m in tapped]
    for before, after in zip(taps.maps, tapped, strict=True):
        assert torch.equal(before.relu(), after)
        assert (before < 0).any()
    untouched = make_resnet().eval()
    untouched.load_state_dict(model.state_dict())
    assert torch.equal(untouched.backbone(images)[-1], tapped[-1])


def test_maps_of_other_backbones_are_refused():
    with pytest.raises(ValueError, match="which MobileNetV2 does not have"):
        last_blocks(create_backbone("mobilenet_v2", BackboneOptions()))
    with pytest.raises(ValueError, match="resnet50_bam"):
        last_blocks(create_backbone("resnet50_bam", BackboneOptions()))


def feature_loss(student, teacher, **options) -> FeatureLoss:
    weights = options.pop("stage_weights", (0.125, 0.25, 0.5, 1.0))
    return FeatureLoss(
        StageFeatureHooks(student.backbone),
        student.backbone.channels,
        [teacher],
        stage_weights=weights,
        **options,
    )


def test_feature_loss_against_a_loop():
    torch.manual_seed(0)
    student, images = make_resnet(), torch.randn(2, 3, 32, 16)
    teacher = Teacher(make_resnet(), keep_maps=True)
    term = feature_loss(student, teacher).eval()
    output = student(images)
    teacher_output = teacher(images)
    own = [maps.detach() for maps in term.feature_hooks.maps]
    value = term(output, make_batch(teacher_output, size=2)).item()
    margins = teacher.margins()
    expected = 0.0
    for stage, weight in enumerate((1 / 8, 1 / 4, 1 / 2, 1)):
        connected = term.connectors[0][stage](own[stage])
        target = teacher_output.maps[stage]
        for channel in range(target.shape[1]):
            wanted = target[:, channel].clamp(min=margins[stage][channel].item())
            difference = connected[:, channel] - wanted
            counted = (difference > 0) | (wanted > 0)
            expected += weight * (difference**2)[counted].sum().item() / 2
    assert value == pytest.approx(expected, rel=1e-4)


def test_feature_loss_of_the_teacher_itself_is_zero_behind_identity_connectors():
    model = make_resnet().eval()
    teacher = Teacher(make_resnet(), keep_maps=True)
    teacher.model.load_state_dict(model.state_dict())
    term = feature_loss(model, teacher, rectified_stages=(0, 1, 2, 3))
    term.connectors = nn.ModuleList([nn.ModuleList([nn.Identity()] * 4)])
    images = torch.randn(2, 3, 32, 16)
    assert term(model(images), make_batch(teacher(images), size=2)).item() == 0


def test_published_feature_form_differs_and_both_train_the_connectors():
    torch.manual_seed(0)
    student, images = make_resnet(), torch.randn(2, 3, 32, 16)
    teacher = Teacher(make_resnet(), keep_maps=True)
    intended = feature_loss(student, teacher)
    published = feature_loss(student, teacher, rectified_stages=(0, 1, 2))
    published.load_state_dict(intended.state_dict())
    values = [
        term(student(images), make_batch(teacher(images), size=2)) for term in (intended, published)
    ]
    assert values[0].item() != values[1].item()
    values[1].backward()
    assert all(p.grad is not None for p in published.parameters())
    assert student.backbone.conv1.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.model.parameters())


def test_each_nth_map_is_compared_and_the_loss_is_scaled():
    torch.manual_seed(0)
    student, images = make_resnet(), torch.randn(3, 3, 32, 16)
    teacher = Teacher(make_resnet(), keep_maps=True)
    some, every = (
        feature_loss(student, teacher, every=2).eval(),
        feature_loss(student, teacher).eval(),
    )
    every.load_state_dict(some.state_dict())
    student.eval()
    value = some(student(images), make_batch(teacher(images)))
    chosen = images[::2]
    expected = every(student(chosen), make_batch(teacher(chosen), size=2))
    torch.testing.assert_close(value, expected)
    value.backward()
    assert student.backbone.conv1.weight.grad.abs().sum() > 0


def test_students_with_fewer_stages_or_another_map_size_are_compared():
    teacher = Teacher(make_resnet(), keep_maps=True)
    target = teacher(torch.randn(2, 3, 32, 16))
    maps = (torch.randn(2, 8, 4, 2), torch.randn(2, 12, 4, 2))
    term = FeatureLoss(None, (8, 12), [teacher], stage_weights=(1.0,) * 4)
    assert [c[0].out_channels for c in term.connectors[0]] == [256, 512]
    assert term(ReidOutput(maps[0], maps=maps), make_batch(target, size=2)).item() > 0


def self_output(channels=(4, 6, 8, 10)) -> ReidOutput:
    sizes = [(16, 8), (8, 4), (4, 2), (4, 2)]
    maps = tuple(
        torch.randn(3, c, *s, requires_grad=True) for c, s in zip(channels, sizes, strict=True)
    )
    return ReidOutput(embedding=torch.zeros(3, 10), maps=maps)


def self_loss(**options) -> SelfDistillationLoss:
    settings = {
        "teacher_stage": 2,
        "student_stages": (0, 1),
        "published": False,
        "num_classes": 5,
        "weight": 0.03,
    }
    return SelfDistillationLoss((4, 6, 8, 10), **(settings | options))


def test_self_distillation_by_hand():
    output, term = self_output(), self_loss().eval()
    vectors = [term.adapters[str(stage)](output.maps[stage]) for stage in range(3)]
    # The last stage's 10 channels at 2 x 1.
    assert vectors[0].shape == (3, 20)
    expected = sum((vectors[i] - vectors[2]).square().sum(dim=1).sqrt().mean() for i in range(2))
    assert term(output, make_batch()).item() == pytest.approx(0.03 * expected.item(), rel=1e-5)


def test_published_self_distillation_is_one_norm_for_the_first_student_stage_only():
    output, term = self_output(), self_loss(published=True).eval()
    assert sorted(term.adapters) == ["0", "2"]
    difference = term.adapters["0"](output.maps[0]) - term.adapters["2"](output.maps[2])
    value = term(output, make_batch())
    assert value.item() == pytest.approx(0.03 * difference.square().sum().sqrt().item(), rel=1e-5)
    value.backward()
    assert output.maps[0].grad.abs().sum() > 0
    assert output.maps[1].grad is None
    assert output.maps[2].grad is None
    assert all(p.grad is None for p in term.adapters["2"].parameters())


def test_classifiers_train_the_teaching_adapter():
    output, term = self_output(), self_loss(weight=0.0, classify_weight=1.0)
    term(output, make_batch()).backward()
    assert all(p.grad is not None for p in term.adapters["2"].parameters())
    assert output.maps[2].grad.abs().sum() > 0


@pytest.mark.parametrize("stage", range(4))
def test_adapters_end_in_the_same_shape(stage):
    adapter = AttentionAdapter((64, 128, 256, 512), stage).eval()
    sizes = [(64, 32), (32, 16), (16, 8), (16, 8)]
    assert adapter(torch.randn(2, 64 * 2**stage, *sizes[stage])).shape == (2, 1024)
    assert adapter.dim == 1024


def test_losses_without_pairs_are_zero():
    output = make_output(batch=1)
    assert (
        create_embedding_pair_loss(relational_distances)(
            output, make_batch(make_output(batch=1), size=1)
        ).item()
        == 0
    )
