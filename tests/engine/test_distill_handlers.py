"""Teachers, the averaged teacher, views, and losses on two processes."""

import logging
import socket

import pytest
import torch
from ember_reid.data.batch import Batch
from ember_reid.engine.distill.handlers import EmaTeacher, TeacherForward, ViewSubsample
from ember_reid.engine.distill.student import init_student
from ember_reid.engine.distill.teachers.teacher import InputAdapter, Teacher
from ember_reid.engine.distributed import gather_rows
from ember_reid.layers import distance_matching, relational_distances, similarity_matching
from ember_reid.modeling.model import GlobalHead, HeadOptions, ReidModel
from ignite.engine import Engine
from torch import multiprocessing, nn

from tests.helpers.tiny import TinyBackbone


def make_model() -> ReidModel:
    return ReidModel(TinyBackbone(), GlobalHead(16, 5, HeadOptions()))


def make_batch(*shape: int) -> Batch:
    numbers = torch.arange(shape[0])
    return Batch(torch.randn(*shape), numbers, numbers, numbers)


def run_handlers(batch: Batch, *handlers, iterations: int = 1) -> Batch:
    """The batch that the training step receives in the last iteration."""
    engine = Engine(lambda engine, _: engine.state.batch)
    for handler in handlers:
        handler.attach(engine)
    return engine.run([batch] * iterations, max_epochs=1).output


@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_a_teacher_never_changes(statistics):
    teacher = Teacher(make_model(), statistics=statistics)
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    batch = run_handlers(
        make_batch(4, 3, 16, 8), TeacherForward([teacher], device_type="cpu"), iterations=3
    )
    output = batch.teachers[0]
    assert output.logits[0].shape == (4, 5)
    assert not output.embedding.requires_grad
    assert all(
        torch.equal(value, before[name]) for name, value in teacher.model.state_dict().items()
    )
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())


def test_batch_statistics_normalize_the_batch():
    model = make_model()
    images = 5 + torch.randn(16, 3, 16, 8)
    by_batch = Teacher(model, statistics="batch")(images).embedding
    # After the neck, which is a batch norm.
    assert by_batch.mean(dim=0).abs().max().item() < 1e-4
    by_running = Teacher(model, statistics="running")(images).embedding
    assert by_running.mean(dim=0).abs().max().item() > 1e-3


def test_outputs_have_the_order_of_the_teachers():
    teachers = [Teacher(make_model()) for _ in range(2)]
    batch = make_batch(4, 3, 16, 8)
    result = run_handlers(batch, TeacherForward(teachers, device_type="cpu"))
    assert len(result.teachers) == 2
    for teacher, output in zip(teachers, result.teachers, strict=True):
        assert torch.equal(output.embedding, teacher(batch.images).embedding)


def test_images_are_renormalized_by_hand_and_resized():
    # The student has (x - 0.5) / 0.5, the teacher expects (x - 0.2) / 0.1.
    # x = 0.7 is 0.4 for the student and 5 for the teacher.
    scale, shift = torch.full((3,), 0.5 / 0.1), torch.full((3,), (0.5 - 0.2) / 0.1)
    adapted = InputAdapter((8, 4), scale, shift)(torch.full((2, 5, 3, 16, 8), 0.4))
    assert adapted.shape == (2, 5, 3, 8, 4)
    assert torch.allclose(adapted, torch.tensor(5.0), atol=1e-5)
    images = torch.randn(2, 3, 16, 8)
    assert InputAdapter()(images) is images


def test_average_of_the_student_by_hand():
    student = make_model()
    average = EmaTeacher(student, decay=0.9, ramp=False, statistics="running")
    start = student.backbone.stem[0].bias.detach().clone()
    with torch.no_grad():
        student.backbone.stem[0].bias += 1
        student.backbone.stem[1].running_mean += 2
    run_handlers(make_batch(2, 3, 16, 8), average)
    assert torch.allclose(average.teacher.model.backbone.stem[0].bias, start + 0.1)
    assert torch.allclose(average.teacher.model.backbone.stem[1].running_mean, torch.tensor(0.2))
    ramped = EmaTeacher(make_model(), decay=0.999, ramp=True, statistics="running")
    ramped.load_state_dict({k: torch.zeros_like(v) for k, v in ramped.state_dict().items()})
    # Momentum (1 + 1) / (10 + 1).
    run_handlers(make_batch(2, 3, 16, 8), ramped)
    assert torch.allclose(
        ramped.teacher.model.head.classifier.weight, ramped.student.head.classifier.weight * 9 / 11
    )


def test_the_student_sees_a_random_subset_of_the_views():
    batch = make_batch(3, 5, 3, 8, 4)
    seen = run_handlers(batch, ViewSubsample(2, num_frames=5, seed=1)).images
    assert seen.shape == (3, 2, 3, 8, 4)
    places = [
        next(j for j in range(5) if torch.equal(seen[:, i], batch.images[:, j])) for i in range(2)
    ]
    assert len(set(places)) == 2
    assert torch.equal(seen, run_handlers(batch, ViewSubsample(2, num_frames=5, seed=1)).images)
    others = [
        run_handlers(batch, ViewSubsample(2, num_frames=5, seed=s)).images for s in range(2, 8)
    ]
    assert not all(torch.equal(seen, other) for other in others)


def test_teachers_see_all_views():
    teacher = Teacher(make_model())
    batch = make_batch(3, 4, 3, 16, 8)
    result = run_handlers(
        batch, TeacherForward([teacher], device_type="cpu"), ViewSubsample(1, num_frames=4, seed=1)
    )
    assert torch.equal(result.teachers[0].embedding, teacher(batch.images).embedding)
    assert result.images.shape[1] == 1


@pytest.mark.parametrize(
    ("reinit", "same"), [("none", {"backbone", "head"}), ("head", {"backbone"})]
)
def test_student_weights_come_from_a_checkpoint(tmp_path, reinit, same):
    from ember_reid.engine.checkpoint import save_checkpoint

    teacher, student = make_model(), make_model()
    save_checkpoint(tmp_path / "t.pt", {"model": teacher.state_dict()})
    init_student(student, str(tmp_path / "t.pt"), reinit=reinit)
    equal = {
        part
        for part in ("backbone", "head")
        if all(
            torch.equal(value, getattr(teacher, part).state_dict()[name])
            for name, value in getattr(student, part).state_dict().items()
        )
    }
    assert equal == same


def test_weights_of_another_architecture_are_refused(tmp_path):
    from ember_reid.engine.checkpoint import save_checkpoint

    save_checkpoint(tmp_path / "t.pt", {"model": nn.Linear(2, 2).state_dict()})
    with pytest.raises(ValueError, match="and the student have different architectures"):
        init_student(make_model(), str(tmp_path / "t.pt"), reinit="head")
    with pytest.raises(ValueError, match="KD.REINIT last-stage supports ResNets"):
        init_student(make_model(), str(tmp_path / "t.pt"), reinit="last-stage")


def test_the_last_stage_of_a_resnet_is_reinitialized(tmp_path):
    from ember_reid.engine.checkpoint import save_checkpoint
    from ember_reid.modeling.backbones import BackboneOptions, create_backbone

    def resnet() -> ReidModel:
        return ReidModel(
            create_backbone("resnet18", BackboneOptions()), GlobalHead(512, 5, HeadOptions())
        )

    teacher, student = resnet(), resnet()
    save_checkpoint(tmp_path / "t.pt", {"model": teacher.state_dict()})
    init_student(student, str(tmp_path / "t.pt"), reinit="last-stage")
    assert torch.equal(
        student.backbone.layer3[1].conv1.weight, teacher.backbone.layer3[1].conv1.weight
    )
    assert not torch.equal(
        student.backbone.layer4[0].conv1.weight, teacher.backbone.layer4[0].conv1.weight
    )
    assert not torch.equal(student.head.classifier.weight, teacher.head.classifier.weight)


@pytest.mark.parametrize(
    ("name", "reinitialized"),
    [
        ("resnet18", "layer4.1.conv2.weight"),
        ("resnet34", "layer4.2.conv2.weight"),
        ("resnet50", "layer4.2.conv3.weight"),
        ("resnet101", "layer4.2.conv3.weight"),
        ("resnet50_bam", "layer4.2.conv3.weight"),
        ("resnet101_bam", "layer4.2.conv3.weight"),
        ("densenet121", "features.denseblock4.denselayer16.conv2.weight"),
        ("mobilenet_v2", ""),
    ],
)
def test_every_backbone_of_vkd_has_its_last_stage(name, reinitialized):
    from ember_reid.engine.distill.student import last_stage
    from ember_reid.modeling.backbones import BackboneOptions, create_backbone

    with torch.device("meta"):
        backbone = create_backbone(name, BackboneOptions())
    prefixes = last_stage(backbone)
    new = [
        parameter
        for parameter, _ in backbone.named_parameters()
        if f"backbone.{parameter}".startswith(prefixes)
    ]
    assert reinitialized in new if reinitialized else not new
    assert len(new) < len(list(backbone.parameters())) / 2


TERMS = [distance_matching, relational_distances, similarity_matching]


def gradients(rows: torch.Tensor, teacher: torch.Tensor, share: slice) -> list[torch.Tensor]:
    """Gradients of a linear student for each term over the rows of this process."""
    result = []
    for term in TERMS:
        student = nn.Linear(4, 3, bias=False)
        with torch.no_grad():
            student.weight.copy_(torch.arange(12.0).view(3, 4) / 10)
        term(gather_rows(student(rows[share])), gather_rows(teacher[share])).backward()
        result.append(student.weight.grad)
    return result


def work(rank: int, port: int, rows: torch.Tensor, teacher: torch.Tensor, results) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    own = gradients(rows, teacher, slice(3 * rank, 3 * rank + 3))
    # As a distributed model and ShareGradients do.
    for gradient in own:
        torch.distributed.all_reduce(gradient)
        gradient /= 2
    if rank == 0:
        results.put([gradient.tolist() for gradient in own])
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_compute_the_gradients_of_one():
    generator = torch.Generator().manual_seed(0)
    rows, teacher = torch.randn(6, 4, generator=generator), torch.randn(6, 5, generator=generator)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    processes = [
        context.Process(target=work, args=(r, port, rows, teacher, results)) for r in range(2)
    ]
    for process in processes:
        process.start()
    together = results.get()
    for process in processes:
        process.join()
    for one, two in zip(gradients(rows, teacher, slice(0, 6)), together, strict=True):
        assert torch.allclose(one, torch.tensor(two), rtol=1e-4, atol=1e-6)


def test_identities_with_too_few_views_are_counted(caplog):
    from ember_reid.config import load_config
    from ember_reid.data.records import Record
    from ember_reid.engine.distill.build import _check_views

    cfg = load_config(None, ["INPUT.NUM_FRAMES", "3", "INPUT.FRAME_SAMPLING", "multiview"])
    records = [Record((), pid, 0) for pid in (0, 0, 0, 1, 1, 2)]
    with caplog.at_level(logging.WARNING, logger="ember.distill"):
        _check_views(cfg, records)
    assert "2 of 3 identities have fewer than 3" in caplog.text
