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
MODERN_TABLE = {
    "cion/market1501/r50_ibn": CION,
    "torchreid/msmt17/osnet_x1_0": OSNET | {"SOLVER.FREEZE_ITERS": 4720},
    "torchreid/market1501/osnet_x0_25": OSNET
    | {"SOLVER.BASE_LR": 0.003, "SOLVER.MAX_EPOCHS": 180, "SOLVER.IMS_PER_BATCH": 128}
    | {"SOLVER.STEPS": (81,), "SOLVER.FREEZE_ITERS": 1010},
}
