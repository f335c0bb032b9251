import math

import pytest
import torch

from layers import distance_matching, kd_divergence


def test_the_teacher_itself_costs_nothing():
    logits, embeddings = torch.randn(4, 5), torch.randn(4, 6)
    for symmetric in (False, True):
        assert kd_divergence(logits, logits, temperature=4.0, symmetric=symmetric).item() == pytest.approx(
            0, abs=1e-6
        )
    assert distance_matching(embeddings, embeddings).item() == 0


def test_divergence_by_hand():
    # Temperature 2 on logits 2 log(3) and 0: the teacher says 3/4 and 1/4, the student 1/2 and 1/2.
    teacher, student = torch.tensor([[2 * math.log(3.0), 0.0]]), torch.zeros(1, 2)
    forward = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    backward = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    one_way = kd_divergence(student, teacher, temperature=2.0, symmetric=False).item()
    both_ways = kd_divergence(student, teacher, temperature=2.0, symmetric=True).item()
    assert one_way == pytest.approx(4 * forward, rel=1e-5)
    assert both_ways == pytest.approx(4 * (forward + backward) / 2, rel=1e-5)


def test_distances_match_by_hand():
    # Squared distances of the pair: student 4, teacher 9; two of the four ordered pairs differ, by 5.
    student, teacher = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    assert distance_matching(student, teacher).item() == 0.5 * (25 + 25) / 4


@pytest.mark.parametrize(
    "loss",
    [lambda s, t: kd_divergence(s, t, temperature=4.0, symmetric=True), distance_matching],
    ids=["divergence", "distances"],
)
def test_only_the_student_gets_a_gradient(loss):
    student, teacher = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    loss(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_one_image_is_enough():
    x = torch.randn(1, 4, requires_grad=True)
    distance_matching(x, torch.randn(1, 9)).backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_different_identities_are_refused():
    with pytest.raises(ValueError, match="both must know the same identities"):
        kd_divergence(torch.zeros(2, 3), torch.zeros(2, 4), temperature=1.0, symmetric=False)
    with pytest.raises(ValueError, match="2 student embeddings, 3 teacher embeddings"):
        distance_matching(torch.zeros(2, 3), torch.zeros(3, 3))
