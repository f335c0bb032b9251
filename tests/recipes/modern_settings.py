"""Settings of the programs of modern networks, written by hand from their sources; not complete."""

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
# mixstyle-release 16f7cf1 reid/cfgs/cfg_r50.yaml, reid/models/resnet_ms.py:552-563
MIXSTYLE = {
    "MODEL.BACKBONE.NAME": "resnet50",
    "MODEL.BACKBONE.LAST_STRIDE": 1,
    "MODEL.HEAD.EMBEDDING_DIM": 512,
    "MODEL.HEAD.REDUCTION": "bn_relu",
    "MODEL.HEAD.NECK": "none",
    "MODEL.MIXSTYLE.STAGES": (1, 2),
    "MODEL.MIXSTYLE.PROB": 0.5,
    "MODEL.MIXSTYLE.ALPHA": 0.1,
    "MODEL.MIXSTYLE.MIX": "random",
    "LOSS.CE.EPSILON": 0.1,
    "LOSS.TRIPLET.WEIGHT": 0.0,
    "INPUT.SIZE_TRAIN": (256, 128),
    "INPUT.PADDING": 0,
    "INPUT.RE_PROB": 0.0,
    "INPUT.FLIP_PROB": 0.5,
    "INPUT.JITTER_PROB": 1.0,
    # deep-person-reid f8cd150 torchreid/data/transforms.py:297-301
    "INPUT.JITTER": (0.2, 0.15, 0.0, 0.0),
    "DATALOADER.SAMPLER": "random",
    "SOLVER.OPTIMIZER": "sgd",
    # lr 0.05 for new layers, base_lr_mult 0.2 for the others
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.HEAD_LR_FACTOR": 5.0,
    "SOLVER.WEIGHT_DECAY": 1e-5,
    "SOLVER.WEIGHT_DECAY_BIAS": 1e-5,
    "SOLVER.WEIGHT_DECAY_NORM": 1e-5,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.MAX_EPOCHS": 60,
    "SOLVER.IMS_PER_BATCH": 32,
    "SOLVER.SCHEDULE": "multistep",
    "SOLVER.STEPS": (21,),
    "SOLVER.GAMMA": 0.1,
    "SOLVER.WARMUP_EPOCHS": 0,
    "TEST.METRIC": "cosine",
    "DATASETS.TESTS": ("market1501", "dukemtmc"),
}
# TransReID 6227ebd configs/Market/vit_transreid_stride.yml:1-60, config/defaults.py:50-80
TRANSREID = CION | {
    "MODEL.BACKBONE.DROP_PATH": 0.1,
    "MODEL.BACKBONE.POSITIONS": "bilinear",
    "MODEL.BACKBONE.PATCH_STRIDE": 12,
    "MODEL.HEAD.NAME": "jpm",
    "MODEL.JPM.PARTS": 4,
    "MODEL.JPM.SHIFT": 5,
    "MODEL.JPM.GROUPS": 2,
    "MODEL.SIE.CAMERAS": 6,
    "MODEL.SIE.WEIGHT": 3.0,
    "SOLVER.BASE_LR": 0.008,
    "SOLVER.WARMUP_EPOCHS": 5.0,
    "SOLVER.IMS_PER_BATCH": 64,
}
# SOLIDER-REID 6509a44 configs/market/swin_base.yml:1-55, run.sh:1-8
SOLIDER = CION | {
    "MODEL.BACKBONE.DROP_PATH": 0.1,
    "MODEL.BACKBONE.SEMANTIC_WEIGHT": 0.2,
    "INPUT.SIZE_TRAIN": (384, 128),
    "SOLVER.BASE_LR": 0.0002,
    "SOLVER.IMS_PER_BATCH": 64,
}
# TransReID-SSL fc39e88 transreid_pytorch/configs/market/vit_small.yml:1-56
SSL = CION | {
    "MODEL.BACKBONE.DROP_PATH": 0.1,
    "INPUT.SIZE_TRAIN": (256, 128),
    "SOLVER.BASE_LR": 0.0004,
    "SOLVER.IMS_PER_BATCH": 64,
}
MODERN_TABLE = {
    "transreid/market1501/vit_transreid_stride": TRANSREID,
    "transreid/occluded_duke/deit_transreid_stride": TRANSREID
    | {"MODEL.BACKBONE.PATCH_STRIDE": 11, "MODEL.SIE.CAMERAS": 8, "INPUT.RE_PROB": 0.8},
    # configs/VeRi/vit_transreid_stride.yml
    "transreid/veri776/vit_transreid_stride": TRANSREID
    | {"MODEL.SIE.CAMERAS": 20, "MODEL.SIE.VIEWS": 8, "MODEL.JPM.SHIFT": 8}
    | {"INPUT.SIZE_TRAIN": (256, 256), "SOLVER.BASE_LR": 0.01},
    "solider/market1501/swin_base": SOLIDER,
    "solider/msmt17/swin_tiny": SOLIDER | {"SOLVER.BASE_LR": 0.0008},
    "transreid-ssl/market1501/vit_small": SSL,
    "transreid-ssl/msmt17/vit_base_ics": SSL | {"INPUT.SIZE_TRAIN": (384, 128)},
    "cion/market1501/r50_ibn": CION,
    "torchreid/msmt17/osnet_x1_0": OSNET | {"SOLVER.FREEZE_ITERS": 4720},
    "generalize/market1501/r50": MIXSTYLE | {"MODEL.MIXSTYLE.STAGES": ()},
    "generalize/market1501/r50_mixstyle": MIXSTYLE,
    "generalize/dukemtmc/r50_mixstyle_cameras": MIXSTYLE
    | {"MODEL.MIXSTYLE.MIX": "cameras", "DATASETS.TESTS": ("dukemtmc", "market1501")},
    "torchreid/market1501/osnet_x0_25": OSNET
    | {"SOLVER.BASE_LR": 0.003, "SOLVER.MAX_EPOCHS": 180, "SOLVER.IMS_PER_BATCH": 128}
    | {"SOLVER.STEPS": (81,), "SOLVER.FREEZE_ITERS": 1010},
}
