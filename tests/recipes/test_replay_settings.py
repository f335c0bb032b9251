"""Replay: losses, sampler, augmentation and precision of published programs, by hand.

A change of a default that changes a recipe fails here.
"""

import pytest
from ember_reid.config import load_config

# FastReID 64861ea configs/Base-bagtricks.yml: CE 23-24, triplet 27-30, erasing 37, sampler 42-44,
# solver 49-61; fastreid/config/defaults.py: padding 10, flip 0.5, weight decay of norms 5e-4.
BOT = {
    "LOSS.CE.WEIGHT": 1.0,
    "LOSS.CE.EPSILON": 0.1,
    "LOSS.CE.SMOOTH_OVER": "others",
    "LOSS.CE.MARGIN_TYPE": "none",
    "LOSS.TRIPLET.WEIGHT": 1.0,
    "LOSS.TRIPLET.MARGIN": 0.3,
    "LOSS.TRIPLET.MINING": "hard",
    "LOSS.CENTER.WEIGHT": 0.0,
    "INPUT.SIZE_TRAIN": (256, 128),
    "INPUT.INTERPOLATION": "bicubic",
    "INPUT.FLIP_PROB": 0.5,
    "INPUT.PADDING": 10,
    "INPUT.RE_PROB": 0.5,
    "INPUT.RE_FILL": "mean",
    "INPUT.AUTOAUG_PROB": 0.0,
    "INPUT.JITTER_PROB": 0.0,
    "DATALOADER.SAMPLER": "identity-fastreid",
    "DATALOADER.NUM_INSTANCES": 4,
    "SOLVER.IMS_PER_BATCH": 64,
    "SOLVER.OPTIMIZER": "adam",
    "SOLVER.BASE_LR": 3.5e-4,
    "SOLVER.BIAS_LR_FACTOR": 2.0,
    "SOLVER.WEIGHT_DECAY": 5e-4,
    "SOLVER.WEIGHT_DECAY_BIAS": 5e-4,
    "SOLVER.WEIGHT_DECAY_NORM": 5e-4,
    "SOLVER.MAX_EPOCHS": 120,
    "SOLVER.FP16": False,
    "SOLVER.FREEZE": (),
    "MODEL.POOL.NAME": "avg",
    "MODEL.BACKBONE.STEM_POOL": "padded",
    "MODEL.BACKBONE.LAST_STRIDE": 1,
    "MODEL.HEAD.METRIC_FEATURE": "before",
    "MODEL.HEAD.CLASSIFIER": "linear",
}
# configs/Base-AGW.yml:5-19
AGW = BOT | {
    "LOSS.TRIPLET.MARGIN": 0.0,
    "LOSS.TRIPLET.MINING": "weighted",
    # fastreid/modeling/losses/triplet_loss.py:13-18
    "LOSS.TRIPLET.FORM": "published",
    "MODEL.POOL.NAME": "gem",
    "MODEL.POOL.GEM_LEARNABLE": True,
    "MODEL.BACKBONE.NON_LOCAL": (0, 2, 3, 0),
    "MODEL.BACKBONE.NON_LOCAL_WIDTH": 1,
}
# configs/Base-Strongerbaseline.yml:4-50; AutoAugment: fastreid/data/transforms/autoaugment.py:499
SBS = AGW | {
    "LOSS.TRIPLET.MINING": "hard",
    "LOSS.CE.MARGIN_TYPE": "circle",
    "LOSS.CE.MARGIN": 0.35,
    "MODEL.HEAD.SCALE": 64.0,
    "MODEL.HEAD.CLASSIFIER": "cosine",
    "MODEL.HEAD.METRIC_FEATURE": "after",
    "INPUT.SIZE_TRAIN": (384, 128),
    "INPUT.AUTOAUG_PROB": 1.0,
    "INPUT.AUTOAUG_DECAY": 60 * 8,
    "DATALOADER.NUM_INSTANCES": 16,
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.MAX_EPOCHS": 60,
    "SOLVER.FREEZE": ("backbone",),
}
# configs/Base-MGN.yml:4-24; fastreid/modeling/meta_arch/mgn.py: conv, batch norm, ReLU
MGN = SBS | {
    "MODEL.HEAD.NAME": "mgn",
    "MODEL.HEAD.EMBEDDING_DIM": 256,
    "MODEL.HEAD.REDUCTION": "bn_relu",
    "MODEL.BACKBONE.NON_LOCAL": (),
    "MODEL.BACKBONE.NON_LOCAL_WIDTH": 0,
}
# 35076d5 configs/Base-bagtricks.yml, Base-Strongerbaseline.yml;
# fastreid/data/samplers/triplet_sampler.py:20-90
MAY = {"DATALOADER.SAMPLER": "identity-cameras"}
# 5fb5e77 configs/VehicleID/bagtricks_R50-ibn.yml, configs/VERIWild/bagtricks_R50-ibn.yml
VEHICLES = {
    "LOSS.TRIPLET.MARGIN": 0.0,
    "LOSS.TRIPLET.MINING": "weighted",
    "LOSS.TRIPLET.FORM": "published",
    "MODEL.POOL.NAME": "gem",
    "MODEL.POOL.GEM_LEARNABLE": True,
    "INPUT.SIZE_TRAIN": (256, 256),
    "DATALOADER.SAMPLER": "identity-cameras",
    "SOLVER.IMS_PER_BATCH": 512,
    "SOLVER.FP16": False,
}
MAY_SBS = (
    SBS
    | MAY
    | {
        "SOLVER.BIAS_LR_FACTOR": 2.0,
        "SOLVER.WEIGHT_DECAY_BIAS": 0.0,
        "SOLVER.MAX_EPOCHS": 89,
        "SOLVER.FREEZE_ITERS": 2000,
        "INPUT.AUTOAUG_DECAY": 18000 * 16,
    }
)
# dc9d1e3 projects/DistillReID/kdreid/kd_trainer.py:51 (teachers in eval mode), 138-141 (t = 4)
DISTILL_REID = BOT | {
    "KD.LOGITS.WEIGHT": 1.0,
    "KD.LOGITS.KIND": "kl",
    "KD.LOGITS.TEMPERATURE": 4.0,
    "KD.TEACHER_STATISTICS": "running",
}
# 15e1729 projects/FastDistill/configs/Base-kd.yml and fastreid/modeling/meta_arch/distiller.py
FAST_DISTILL = {
    "KD.LOGITS.WEIGHT": 1.0,
    "KD.LOGITS.KIND": "symmetric",
    "KD.LOGITS.TEMPERATURE": 16.0,
    "KD.TEACHER_STATISTICS": "batch",
    "MODEL.HEAD.EMBEDDING_DIM": 0,
    "MODEL.BACKBONE.NON_LOCAL": (),
    "INPUT.SIZE_TRAIN": (256, 128),
    "INPUT.AUTOAUG_PROB": 0.1,
    "INPUT.AUTOAUG_DECAY": 0,
    "DATALOADER.NUM_INSTANCES": 16,
    "SOLVER.IMS_PER_BATCH": 256,
    "SOLVER.BASE_LR": 7e-4,
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.MAX_EPOCHS": 60,
    "SOLVER.WARMUP_EPOCHS": 10.0,
    "SOLVER.FREEZE_ITERS": 500,
    "SOLVER.FP16": True,
}
# reid-strong-baseline 3da7e6f configs/softmax_triplet_with_center.yml:14-59
STRONG_BASELINE = {
    "LOSS.CE.EPSILON": 0.1,
    "LOSS.CE.SMOOTH_OVER": "all",
    "LOSS.TRIPLET.MARGIN": 0.3,
    "LOSS.CENTER.WEIGHT": 0.0005,
    "LOSS.CENTER.LR": 0.5,
    "INPUT.FLIP_PROB": 0.5,
    "INPUT.RE_PROB": 0.5,
    "INPUT.RE_FILL": "published",
    "DATALOADER.SAMPLER": "identity",
    "DATALOADER.NUM_INSTANCES": 4,
    "SOLVER.IMS_PER_BATCH": 64,
    "SOLVER.BASE_LR": 3.5e-4,
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.WEIGHT_DECAY": 5e-4,
    "SOLVER.MAX_EPOCHS": 120,
    "SOLVER.FP16": False,
    "MODEL.BACKBONE.STEM_RELU": False,
}
# reid_baseline_with_syncbn 74a6b6b configs/veri.yml:33-40
SYNCBN_VEHICLES = {
    "LOSS.CE.EPSILON": 0.0,
    "INPUT.SIZE_TRAIN": (384, 384),
    "INPUT.PIXEL_MEAN": (0.5, 0.5, 0.5),
    "DATALOADER.NUM_INSTANCES": 6,
    "SOLVER.IMS_PER_BATCH": 36,
    "SOLVER.BASE_LR": 1e-4,
    "SOLVER.GAMMA": 0.6,
    "SOLVER.MAX_EPOCHS": 260,
    "SOLVER.FP16": True,
    "TEST.METRIC": "euclidean",
}
# VKD a56b12e tools/train_distill.py:134-153, data/eval_metrics.py:24-33
VKD_STUDENT = {
    "LOSS.CE.EPSILON": 0.0,
    "LOSS.TRIPLET.MARGIN": 0.0,
    "INPUT.NUM_FRAMES": 8,
    "KD.STUDENT_VIEWS": 2,
    "KD.LOGITS.WEIGHT": 0.1,
    "KD.LOGITS.KIND": "kl",
    "KD.LOGITS.TEMPERATURE": 10.0,
    "KD.DISTANCES.WEIGHT": 1e-4,
    "KD.TEACHER_STATISTICS": "batch",
    "SOLVER.BASE_LR": 1e-4,
    "SOLVER.WEIGHT_DECAY": 1e-5,
    "SOLVER.IMS_PER_BATCH": 48,
    "TEST.AVERAGE_PRECISION": "trapezoid",
}
# reid_strong_baseline_KD b9d859e tools/train.py:43-82, engine/trainer.py:46-63
SELF = {
    "KD.SELF.WEIGHT": 0.03,
    "KD.SELF.FORM": "published",
    "KD.SELF.CLASSIFY_WEIGHT": 0.0,
    "INPUT.RE_FILL": "published",
    "SOLVER.IMS_PER_BATCH": 8,
    "DATALOADER.NUM_INSTANCES": 4,
    "SOLVER.MAX_EPOCHS": 120,
    "MODEL.BACKBONE.STEM_RELU": False,
}
# CION_ReIDZoo 7ac6fd7 CION_Finetune/TransReID/configs/market/resnet50_ibn.yml:1-58
CION = {
    "LOSS.CE.EPSILON": 0.0,
    "LOSS.TRIPLET.MARGIN": 0.0,
    "INPUT.PIXEL_MEAN": (0.5, 0.5, 0.5),
    "INPUT.PIXEL_STD": (0.5, 0.5, 0.5),
    "INPUT.RE_PROB": 0.5,
    "INPUT.PADDING": 10,
    "DATALOADER.NUM_INSTANCES": 4,
    "SOLVER.OPTIMIZER": "sgd",
    "SOLVER.BASE_LR": 0.0032,
    "SOLVER.BIAS_LR_FACTOR": 2.0,
    "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.WEIGHT_DECAY_BIAS": 1e-4,
    "SOLVER.MAX_EPOCHS": 120,
    "SOLVER.WARMUP_EPOCHS": 20.0,
    "SOLVER.IMS_PER_BATCH": 512,
    "TEST.NECK_FEAT": "before",
    "TEST.METRIC": "cosine",
}
# deep-person-reid f8cd150 configs/im_osnet_x1_0_softmax_256x128_amsgrad.yaml:5-40
OSNET = {
    "LOSS.CE.EPSILON": 0.1,
    "LOSS.TRIPLET.WEIGHT": 0.0,
    "INPUT.SIZE_TRAIN": (256, 128),
    "INPUT.PADDING": 0,
    "INPUT.RE_PROB": 0.0,
    "DATALOADER.SAMPLER": "random",
    "SOLVER.OPTIMIZER": "adam",
    "SOLVER.BASE_LR": 0.0015,
    "SOLVER.MAX_EPOCHS": 150,
    "SOLVER.IMS_PER_BATCH": 64,
    "SOLVER.STEPS": (61,),
    "SOLVER.FREEZE": ("backbone",),
    "TEST.METRIC": "euclidean",
}
TABLE = {
    "cion/market1501/r50_ibn": CION,
    "torchreid/msmt17/osnet_x1_0": OSNET | {"SOLVER.FREEZE_ITERS": 4720},
    "torchreid/market1501/osnet_x0_25": OSNET
    | {"SOLVER.BASE_LR": 0.003, "SOLVER.MAX_EPOCHS": 180, "SOLVER.IMS_PER_BATCH": 128}
    | {"SOLVER.STEPS": (81,), "SOLVER.FREEZE_ITERS": 1010},
    "market1501/bot_S50": BOT,
    "dukemtmc/bot_R50": BOT,
    "dukemtmc/agw_R50": AGW,
    "market1501/sbs_S50": SBS,
    "dukemtmc/sbs_R50": SBS,
    "dukemtmc/mgn_R50-ibn": MGN,
    "vehicleid/bot_R50-ibn": VEHICLES | {"SOLVER.MAX_EPOCHS": 129, "SOLVER.BIAS_LR_FACTOR": 1.0},
    "veriwild/bot_R50-ibn": VEHICLES | {"SOLVER.MAX_EPOCHS": 120, "SOLVER.BIAS_LR_FACTOR": 2.0},
    "market1501/bot_R50": BOT | MAY | {"SOLVER.MAX_EPOCHS": 119},
    "market1501/agw_R50": AGW | MAY | {"SOLVER.MAX_EPOCHS": 119},
    "market1501/sbs_R50": MAY_SBS,
    "market1501/sbs_R101-ibn": MAY_SBS
    | {"MODEL.BACKBONE.NON_LOCAL": (), "MODEL.BACKBONE.NON_LOCAL_WIDTH": 0},
    "distill/market1501/R50-R18": DISTILL_REID,
    "distill/msmt17/R101-R34": DISTILL_REID,
    "distill/fastdistill/R101-ibn_R34": FAST_DISTILL,
    "strong-baseline/market1501/7_center": STRONG_BASELINE,
    "syncbn/veri": SYNCBN_VEHICLES,
    "syncbn/veriwild": SYNCBN_VEHICLES,
    "distill/vkd/mars/self_resnet50": VKD_STUDENT,
    "distill/self/resnet50_published": SELF,
}


@pytest.mark.parametrize("name", TABLE)
def test_settings_of_the_program_that_was_scored(name):
    cfg = load_config(name)
    different = {}
    for key, expected in TABLE[name].items():
        value = cfg
        for part in key.split("."):
            value = value[part]
        if value != expected:
            different[key] = (value, expected)
    assert different == {}
