"""Settings of published programs, written by hand from their sources.

Each value is that of the program in the terms of this one. A table is complete for the groups of
`COMPLETE` in test_replay_settings.py: a default that changes underneath a recipe differs from the
table, also that of a setting that the peer does not have (`OFF`).
"""

# What none of the programs does, and how this program switches it off.
OFF = {
    "LOSS.CENTER.WEIGHT": 0.0,
    "LOSS.CIRCLE.WEIGHT": 0.0,
    "LOSS.COSFACE.WEIGHT": 0.0,
    "LOSS.XBM.SIZE": 0,
    "LOSS.PLUGIN.NAME": "",
    "LOSS.PML.NAME": "",
    "LOSS.CE.MARGIN_TYPE": "none",
    "LOSS.TRIPLET.NORMALIZE": False,
    "KD.EMA.ENABLED": False,
    "TEST.SELECT": "score",
    "KD.LOGITS.WEIGHT": 0.0,
    "KD.FEATURE.WEIGHT": 0.0,
    "KD.DISTANCES.WEIGHT": 0.0,
    "KD.RELATION.SIMILARITY_WEIGHT": 0.0,
    "KD.RELATION.DISTANCE_WEIGHT": 0.0,
    "KD.RELATION.ANGLE_WEIGHT": 0.0,
    "KD.EMBEDDING.WEIGHT": 0.0,
    "KD.SELF.WEIGHT": 0.0,
    "KD.SELF.CLASSIFY_WEIGHT": 0.0,
    "KD.STUDENT_VIEWS": 0,
    "KD.STUDENT_WEIGHTS": "",
    "INPUT.AUTOAUG_PROB": 0.0,
    "INPUT.AFFINE_PROB": 0.0,
    "INPUT.AUGMIX_PROB": 0.0,
    "INPUT.PATCH_PROB": 0.0,
    "INPUT.JITTER_PROB": 0.0,
    "INPUT.NUM_FRAMES": 1,
    "INPUT.SCALES": (1.0,),
    "INPUT.SCALE_STEPS": (),
    "SOLVER.MUON_LR": 0.1,
    "SOLVER.BASE_BATCH": 0,
    "SOLVER.HEAD_LR_FACTOR": 1.0,
    "SOLVER.LAYER_DECAY": 1.0,
    "SOLVER.ACCUMULATION_STEPS": 1,
    "SOLVER.CLIP_NORM": 0.0,
    "SOLVER.FREEZE": (),
    "SOLVER.EMA_DECAY": 0.0,
    "SOLVER.PRECISE_BN_ITERS": 0,
    "SOLVER.MINING": "global",
    "SOLVER.FP16": False,
}
# For the evaluation and the network; not complete.
IMAGENET = {
    "INPUT.PIXEL_MEAN": (0.485, 0.456, 0.406),
    "INPUT.PIXEL_STD": (0.229, 0.224, 0.225),
    "TEST.METRIC": "cosine",
    "TEST.NECK_FEAT": "after",
    "TEST.FLIP": False,
    "TEST.AVERAGE_PRECISION": "mean",
    "MODEL.BACKBONE.LAST_STRIDE": 1,
    "MODEL.BACKBONE.LAST_RELU": True,
    "MODEL.BACKBONE.STEM_RELU": True,
    "MODEL.BACKBONE.NON_LOCAL": (),
    "MODEL.POOL.NAME": "avg",
    "MODEL.HEAD.NAME": "global",
    "MODEL.HEAD.NECK": "bnneck",
    "MODEL.HEAD.EMBEDDING_DIM": 0,
    "MODEL.HEAD.METRIC_FEATURE": "before",
    "MODEL.HEAD.CLASSIFIER": "linear",
}

# FastReID 64861ea configs/Base-bagtricks.yml: CE 23-24, triplet 27-30, erasing 35-38, sampler
# 42-44, solver 47-61; fastreid/config/defaults.py: flip 0.5 and padding 10; resizing is bicubic
# (fastreid/data/transforms/build.py:49), erasing has an area of 0.02 to 0.4 and an aspect of 0.3
# to 1 / 0.3 (transforms.py:56) and fills pixels of 0..255 with the mean.
BOT = (
    OFF
    | IMAGENET
    | {
        "LOSS.CE.WEIGHT": 1.0,
        "LOSS.CE.EPSILON": 0.1,
        "LOSS.CE.SMOOTH_OVER": "others",
        "LOSS.CE.MARGIN": 0.0,
        "LOSS.TRIPLET.WEIGHT": 1.0,
        "LOSS.TRIPLET.MARGIN": 0.3,
        "LOSS.TRIPLET.MINING": "hard",
        "INPUT.SIZE_TRAIN": (256, 128),
        "INPUT.SIZE_TEST": (256, 128),
        "INPUT.INTERPOLATION": "bicubic",
        "INPUT.FLIP_PROB": 0.5,
        "INPUT.PADDING": 10,
        "INPUT.RE_PROB": 0.5,
        "INPUT.RE_ASPECT": (0.3, 1 / 0.3),
        "INPUT.RE_FILL": "mean",
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
        "MODEL.BACKBONE.STEM_POOL": "padded",
    }
)
# configs/Base-AGW.yml:5-19; fastreid/modeling/losses/triplet_loss.py:13-18
AGW = BOT | {
    "LOSS.TRIPLET.MARGIN": 0.0,
    "LOSS.TRIPLET.MINING": "weighted",
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
    "INPUT.SIZE_TEST": (384, 128),
    "INPUT.AUTOAUG_PROB": 1.0,
    "INPUT.AUTOAUG_DECAY": 60 * 8,
    "DATALOADER.NUM_INSTANCES": 16,
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.MAX_EPOCHS": 60,
    "SOLVER.FREEZE": ("backbone",),
}
# Ten epochs of 202 and 258 iterations.
SBS_MARKET = SBS | {"SOLVER.FREEZE_ITERS": 2020}
SBS_DUKE = SBS | {"SOLVER.FREEZE_ITERS": 2580}
# configs/Base-MGN.yml:4-24; fastreid/modeling/meta_arch/mgn.py: conv, batch norm, ReLU
MGN_DUKE = SBS_DUKE | {
    "MODEL.HEAD.NAME": "mgn",
    "MODEL.HEAD.EMBEDDING_DIM": 256,
    "MODEL.HEAD.REDUCTION": "bn_relu",
    "MODEL.BACKBONE.NON_LOCAL": (),
    "MODEL.BACKBONE.NON_LOCAL_WIDTH": 0,
}
# 35076d5 configs/Base-bagtricks.yml, Base-Strongerbaseline.yml;
# fastreid/data/samplers/triplet_sampler.py:20-90
MAY = {"DATALOADER.SAMPLER": "identity-cameras"}
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
NO_NON_LOCAL = {"MODEL.BACKBONE.NON_LOCAL": (), "MODEL.BACKBONE.NON_LOCAL_WIDTH": 0}
# 5fb5e77 configs/VehicleID/bagtricks_R50-ibn.yml, configs/VERIWild/bagtricks_R50-ibn.yml
VEHICLES = (
    BOT
    | MAY
    | {
        "LOSS.TRIPLET.MARGIN": 0.0,
        "LOSS.TRIPLET.MINING": "weighted",
        "LOSS.TRIPLET.FORM": "published",
        "MODEL.POOL.NAME": "gem",
        "MODEL.POOL.GEM_LEARNABLE": True,
        "INPUT.SIZE_TRAIN": (256, 256),
        "INPUT.SIZE_TEST": (256, 256),
        "SOLVER.IMS_PER_BATCH": 512,
    }
)
# c9bc3ce configs/Base-bagtricks.yml and configs/Base-SBS.yml; its pooling rounds sizes up.
HEAD_BOT = BOT | {
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.FP16": True,
    "MODEL.BACKBONE.STEM_POOL": "ceil",
}
HEAD_SBS = SBS | {
    "SOLVER.FP16": True,
    "SOLVER.FREEZE_ITERS": 1000,
    "INPUT.AUTOAUG_PROB": 0.1,
    "INPUT.AUTOAUG_DECAY": 0,
    "MODEL.BACKBONE.STEM_POOL": "ceil",
}
# dc9d1e3 projects/DistillReID/kdreid/kd_trainer.py:46-51 (batch norms of the teacher in eval mode)
# and 138-142 (one-way, t = 4, t^2 / batch, weight 1); configs/Base-bagtricks.yml
DISTILL_REID = BOT | {
    "KD.LOGITS.WEIGHT": 1.0,
    "KD.LOGITS.KIND": "kl",
    "KD.LOGITS.TEMPERATURE": 4.0,
    "KD.TEACHER_STATISTICS": "running",
}
# 15e1729 projects/FastDistill/configs/Base-kd.yml, configs/Base-SBS.yml and
# fastreid/modeling/meta_arch/distiller.py:105-114 (symmetric, t = 16); the teacher is in train mode
FAST_DISTILL = SBS | {
    "KD.LOGITS.WEIGHT": 1.0,
    "KD.LOGITS.KIND": "symmetric",
    "KD.LOGITS.TEMPERATURE": 16.0,
    "KD.TEACHER_STATISTICS": "batch",
    "MODEL.BACKBONE.STEM_POOL": "ceil",
    "MODEL.BACKBONE.NON_LOCAL": (),
    "MODEL.BACKBONE.NON_LOCAL_WIDTH": 0,
    "INPUT.SIZE_TRAIN": (256, 128),
    "INPUT.SIZE_TEST": (256, 128),
    "INPUT.AUTOAUG_PROB": 0.1,
    "INPUT.AUTOAUG_DECAY": 0,
    "SOLVER.IMS_PER_BATCH": 256,
    "SOLVER.BASE_LR": 7e-4,
    "SOLVER.FREEZE_ITERS": 500,
    "SOLVER.FP16": True,
}
# reid-strong-baseline 3da7e6f configs/softmax_triplet_with_center.yml:6-48; smoothing over all
# classes (layers/triplet_loss.py:145); erasing after normalization fills with the mean
# (data/transforms/build.py:22, transforms.py:23-33); no ReLU in the stem (backbones/resnet.py:124)
STRONG_BASELINE = BOT | {
    "LOSS.CE.SMOOTH_OVER": "all",
    "LOSS.CENTER.WEIGHT": 0.0005,
    "LOSS.CENTER.LR": 0.5,
    "INPUT.INTERPOLATION": "bilinear",
    "INPUT.RE_FILL": "published",
    "DATALOADER.SAMPLER": "identity",
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "MODEL.BACKBONE.STEM_RELU": False,
}
# reid_baseline_with_syncbn 74a6b6b configs/veri.yml:1-46, config.py:17-125 (no smoothing)
SYNCBN_VEHICLES = STRONG_BASELINE | {
    "LOSS.CE.EPSILON": 0.0,
    "LOSS.CENTER.WEIGHT": 0.0,
    "INPUT.SIZE_TRAIN": (384, 384),
    "INPUT.SIZE_TEST": (384, 384),
    "INPUT.PIXEL_MEAN": (0.5, 0.5, 0.5),
    "INPUT.PIXEL_STD": (0.5, 0.5, 0.5),
    "INPUT.PADDING": 0,
    "DATALOADER.NUM_INSTANCES": 6,
    "SOLVER.IMS_PER_BATCH": 36,
    "SOLVER.BASE_LR": 1e-4,
    "SOLVER.MAX_EPOCHS": 260,
    "SOLVER.FP16": True,
    "MODEL.BACKBONE.STEM_RELU": True,
    "TEST.METRIC": "euclidean",
}
# VKD a56b12e tools/train_v2v.py:22-42, 66-74; data/misc.py:59-103; data/eval_metrics.py:24-33;
# commands.txt (P 8 x K 4 of 8 frames on MARS, P 18 x K 4 of 1 image on VeRi-776); embeddings in
# front of the neck and no ReLU in the last block (model/net.py:97, 204-231)
VKD_TEACHER = STRONG_BASELINE | {
    "LOSS.CE.EPSILON": 0.0,
    "LOSS.TRIPLET.MARGIN": 0.0,
    "LOSS.CENTER.WEIGHT": 0.0,
    "INPUT.INTERPOLATION": "bicubic",
    "INPUT.RE_ASPECT": (0.3, 3.3),
    "INPUT.RE_FILL": "mean",
    "INPUT.NUM_FRAMES": 8,
    "INPUT.NUM_FRAMES_TEST": 8,
    "INPUT.FRAME_SAMPLING": "chunk",
    "DATALOADER.SAMPLER": "identity-once",
    "SOLVER.IMS_PER_BATCH": 32,
    "SOLVER.BASE_LR": 1e-4,
    "SOLVER.WEIGHT_DECAY": 1e-5,
    "SOLVER.WEIGHT_DECAY_BIAS": 1e-5,
    "SOLVER.WEIGHT_DECAY_NORM": 1e-5,
    "SOLVER.MAX_EPOCHS": 300,
    "MODEL.BACKBONE.STEM_RELU": True,
    "MODEL.BACKBONE.LAST_RELU": False,
    "TEST.NECK_FEAT": "before",
    "TEST.AVERAGE_PRECISION": "trapezoid",
}
VKD_VERI = VKD_TEACHER | {
    "INPUT.SIZE_TRAIN": (224, 224),
    "INPUT.SIZE_TEST": (224, 224),
    "INPUT.RE_ASPECT": (0.7, 1.4),
    "INPUT.NUM_FRAMES": 1,
    "SOLVER.IMS_PER_BATCH": 72,
}
# VKD a56b12e tools/train_distill.py:31-67, 115-155; model/net.py:233-237 (statistics of the batch)
VKD_STUDENT = VKD_TEACHER | {
    "INPUT.FRAME_SAMPLING": "multiview",
    "SOLVER.IMS_PER_BATCH": 48,
    "SOLVER.MAX_EPOCHS": 500,
    "KD.STUDENT_VIEWS": 2,
    "KD.STUDENT_WEIGHTS": "teacher",
    "KD.REINIT": "last-stage",
    "KD.LOGITS.WEIGHT": 0.1,
    "KD.LOGITS.KIND": "kl",
    "KD.LOGITS.TEMPERATURE": 10.0,
    "KD.DISTANCES.WEIGHT": 1e-4,
    "KD.TEACHER_STATISTICS": "batch",
}
# reid_strong_baseline_KD b9d859e tools/train.py:43-82, engine/trainer.py:46-63
SELF = STRONG_BASELINE | {
    "LOSS.CENTER.WEIGHT": 0.0,
    "KD.SELF.WEIGHT": 0.03,
    "KD.SELF.FORM": "published",
    "KD.SELF.TEACHER": 3,
    "KD.SELF.LEARNERS": (1, 2),
    "SOLVER.IMS_PER_BATCH": 8,
}

TABLE = {
    "market1501/bot_S50": BOT,
    "dukemtmc/bot_R50": BOT,
    "dukemtmc/agw_R50": AGW,
    "market1501/sbs_S50": SBS_MARKET,
    "dukemtmc/sbs_R50": SBS_DUKE,
    "dukemtmc/mgn_R50-ibn": MGN_DUKE,
    "vehicleid/bot_R50-ibn": VEHICLES | {"SOLVER.MAX_EPOCHS": 129, "SOLVER.BIAS_LR_FACTOR": 1.0},
    "veriwild/bot_R50-ibn": VEHICLES,
    "market1501/bot_R50": BOT | MAY | {"SOLVER.MAX_EPOCHS": 119},
    "market1501/agw_R50": AGW | MAY | {"SOLVER.MAX_EPOCHS": 119},
    "market1501/sbs_R50": MAY_SBS,
    "market1501/sbs_R101-ibn": MAY_SBS | NO_NON_LOCAL,
    "fastreid-head/bot_R50": HEAD_BOT,
    "fastreid-head/sbs_R50": HEAD_SBS,
    "distill/market1501/R50-R18": DISTILL_REID,
    "distill/msmt17/R101-R34": DISTILL_REID,
    "distill/fastdistill/R101-ibn_R34": FAST_DISTILL,
    "strong-baseline/market1501/7_center": STRONG_BASELINE,
    "syncbn/veri": SYNCBN_VEHICLES,
    "syncbn/veriwild": SYNCBN_VEHICLES,
    "distill/vkd/mars/resnet50": VKD_TEACHER,
    "distill/vkd/veri/resnet50": VKD_VERI,
    "distill/vkd/mars/self_resnet50": VKD_STUDENT,
    "distill/self/resnet50_published": SELF,
}
