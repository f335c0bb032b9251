import math

import pytest
import torch
from ember_reid.layers import (
    cosine_matching,
    distance_matching,
    kd_divergence,
    logit_matching,
    relational_angles,
    relational_distances,
    similarity_matching,
)


def test_the_loss_is_zero_if_the_student_equals_the_teacher():
    logits, embeddings = torch.randn(4, 5), torch.randn(4, 6)
    for symmetric in (False, True):
        assert kd_divergence(
            logits, logits, temperature=4.0, symmetric=symmetric
        ).item() == pytest.approx(0, abs=1e-6)
    assert distance_matching(embeddings, embeddings).item() == 0


def test_divergence_by_hand():
    # Temperature 2 on logits 2 log(3) and 0: teacher 3/4 and 1/4, student 1/2 and 1/2.
    teacher, student = torch.tensor([[2 * math.log(3.0), 0.0]]), torch.zeros(1, 2)
    forward = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    backward = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    one_way = kd_divergence(student, teacher, temperature=2.0, symmetric=False).item()
    both_ways = kd_divergence(student, teacher, temperature=2.0, symmetric=True).item()
    assert one_way == pytest.approx(4 * forward, rel=1e-5)
    assert both_ways == pytest.approx(4 * (forward + backward) / 2, rel=1e-5)


def test_distance_matching_by_hand():
    # Squared distance of the pair: student 4, teacher 9. Two of the four ordered pairs differ.
    student, teacher = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    assert distance_matching(student, teacher).item() == 0.5 * (25 + 25) / 4


@pytest.mark.parametrize(
    "loss",
    [lambda s, t: kd_divergence(s, t, temperature=4.0, symmetric=True), distance_matching],
    ids=["divergence", "distances"],
)
def test_only_the_student_receives_a_gradient(loss):
    student, teacher = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    loss(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_distance_matching_of_one_image_has_a_zero_gradient():
    x = torch.randn(1, 4, requires_grad=True)
    distance_matching(x, torch.randn(1, 9)).backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_mismatched_shapes_are_refused():
    with pytest.raises(ValueError, match="both must know the same identities"):
        kd_divergence(torch.zeros(2, 3), torch.zeros(2, 4), temperature=1.0, symmetric=False)
    with pytest.raises(ValueError, match="2 student embeddings, 3 teacher embeddings"):
        distance_matching(torch.zeros(2, 3), torch.zeros(3, 3))


def test_logit_matching_by_hand():
    assert (
        logit_matching(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])).item() == (1 + 4) / 2
    )
    with pytest.raises(ValueError, match="both must know the same identities"):
        logit_matching(torch.zeros(2, 3), torch.zeros(2, 4))


def test_cosine_and_similarity_matching_by_hand():
    student = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    # Cosines 1 and 0.
    teacher = torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    assert cosine_matching(student, teacher).item() == 0.5
    with pytest.raises(ValueError, match="the cosine needs equal shapes"):
        cosine_matching(torch.zeros(2, 3), torch.zeros(2, 4))
    # Cosine of the pair: student 0, teacher 1. Two of the four ordered pairs differ.
    assert similarity_matching(student, teacher).item() == pytest.approx(0.5)


def test_relational_distances_by_hand():
    # Three points on a line: student at 0, 1, 3 (distances 1, 2, 3, mean 2), teacher at 0, 1, 2
    # (distances 1, 1, 2, mean 4/3).
    student = torch.tensor([[0.0], [1.0], [3.0]])
    teacher = torch.tensor([[0.0], [1.0], [2.0]])
    # Pairs 01, 02, 12, each twice.
    differences = [1 / 2 - 3 / 4, 3 / 2 - 3 / 2, 2 / 2 - 3 / 4]
    expected = sum(2 * 0.5 * d**2 for d in differences) / 9
    assert relational_distances(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_relational_angles_by_hand_and_by_loop():
    # At the first point the student has a right angle (cosine 0) and the teacher a straight line
    # (cosine -1).
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])

    def cosine(x, j, i, k):
        a, b = x[i] - x[j], x[k] - x[j]
        norm = a.norm() * b.norm()
        return (a @ b / norm).item() if norm > 0 else 0.0

    total = 0.0
    for j in range(3):
        for i in range(3):
            for k in range(3):
                difference = abs(cosine(student, j, i, k) - cosine(teacher, j, i, k))
                total += 0.5 * difference**2 if difference < 1 else difference - 0.5
    assert cosine(student, 0, 1, 2) == 0
    assert cosine(teacher, 0, 1, 2) == -1
    assert relational_angles(student, teacher).item() == pytest.approx(total / 27, rel=1e-5)


@pytest.mark.parametrize("loss", [similarity_matching, relational_distances, relational_angles])
def test_relational_losses_are_invariant_to_scale(loss):
    embeddings = torch.randn(5, 4)
    assert loss(3 * embeddings, embeddings).item() == pytest.approx(0, abs=1e-6)
    student = torch.randn(5, 7, requires_grad=True)
    loss(student, embeddings).backward()
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="5 student embeddings, 3 teacher embeddings"):
        loss(student, torch.zeros(3, 4))


@pytest.mark.parametrize("loss", [similarity_matching, relational_distances, relational_angles])
def test_relational_losses_of_one_image_are_zero(loss):
    x = torch.randn(1, 4, requires_grad=True)
    value = loss(x, torch.randn(1, 9))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(x.grad).all()
