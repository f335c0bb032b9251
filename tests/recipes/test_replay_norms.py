"""Replay: batch norms of students and teachers, and how long a part of the network is frozen.

All programs have torch's momentum of 0.1 and epsilon of 1e-5: FastReID 64861ea
fastreid/layers/batch_norm.py:24, reid-strong-baseline 3da7e6f modeling/backbones/resnet.py:98,
VKD a56b12e model/net.py:150. The neck's bias is not trained (modeling/baseline.py:143 there).
"""

import copy

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.engine.distill.teachers.teacher import Teacher
from ember_reid.engine.handlers.gradients import Freeze
from ember_reid.modeling import build_model
from ember_reid.modeling.model import GlobalHead, HeadOptions, ReidModel
from ignite.engine import Engine
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.helpers.tiny import TinyBackbone

STUDENTS = (
    *("market1501/bot_R50", "market1501/sbs_R50", "fastreid-head/bot_R50"),
    *("strong-baseline/market1501/resnet50", "syncbn/veri", "distill/vkd/mars/self_resnet50"),
    *("distill/market1501/R50-R18", "distill/fastdistill/R101-ibn_R34"),
    "distill/self/resnet50_published",
)


@pytest.mark.parametrize("recipe", STUDENTS)
def test_batch_norms_of_the_trained_network(recipe):
    with torch.device("meta"):
        model = build_model(load_config(recipe), num_classes=751, pretrained=False).train()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    assert len(norms) > 20
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.1, 1e-5)}
    assert all(norm.training and norm.track_running_stats and norm.affine for norm in norms)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["head.neck.bias"]


# DistillReID dc9d1e3 kd_trainer.py:46-51 sets the batch norms of the teacher to eval. FastDistill
# 15e1729 distiller.py:36-49 never calls eval. VKD a56b12e model/net.py:233-237: train mode, and
# track_running_stats False.
TEACHERS = {
    "distill/market1501/R50-R18": "running",
    "distill/msmt17/R101-R34": "running",
    "distill/fastdistill/R101-ibn_R34": "batch",
    "distill/vkd/mars/self_resnet50": "batch",
    "distill/vkd/veri/resnet101_resnet34": "batch",
}


@pytest.mark.parametrize("recipe", TEACHERS)
def test_statistics_of_the_teacher(recipe):
    torch.manual_seed(0)
    backbone = TinyBackbone(dropout=0.0)
    model = ReidModel(backbone, GlobalHead(backbone.channels[-1], 5, HeadOptions()))
    images = 3 + 2 * torch.randn(8, 3, 16, 8)
    trained = copy.deepcopy(model).train()(images)
    tested = copy.deepcopy(model).eval()(images)
    teacher = Teacher(model, statistics=load_config(recipe).KD.TEACHER_STATISTICS)
    before = copy.deepcopy(model.state_dict())
    output = teacher(images)
    expected = tested if TEACHERS[recipe] == "running" else trained
    torch.testing.assert_close(output.logits[0], expected.logits[0])
    assert (tested.logits[0] - trained.logits[0]).abs().max() > 1e-4
    # A teacher does not learn, and neither do its statistics.
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# FastReID 64861ea fastreid/engine/hooks.py:437-463 and configs/Base-Strongerbaseline.yml: the
# backbone is in eval mode for ten epochs; in 35076d5 for 2,000 iterations.
FROZEN = {
    "market1501/sbs_S50": 10 * 202,
    "dukemtmc/mgn_R50-ibn": 10 * 258,
    "msmt17/sbs_S50": 10 * 472,
    "market1501/sbs_R50": 2000,
    "fastreid-head/sbs_R50": 1000,
    "distill/fastdistill/R34": 500,
}


@pytest.mark.parametrize("recipe", FROZEN)
def test_frozen_backbones(recipe):
    solver = load_config(recipe).SOLVER
    assert tuple(solver.FREEZE) == ("backbone",) and solver.FREEZE_ITERS == FROZEN[recipe]
    model = nn.ModuleDict({"backbone": nn.BatchNorm1d(2), "head": nn.BatchNorm1d(2)})
    freeze = Freeze(model, solver.FREEZE, solver.FREEZE_ITERS)
    engine = Engine(lambda engine, batch: None)
    modes = []
    for iteration in (1, FROZEN[recipe], FROZEN[recipe] + 1):
        engine.state.iteration = iteration
        freeze.set_mode(engine)
        modes.append((model["backbone"].training, model["head"].training))
    assert modes == [(False, True), (False, True), (True, True)]
