"""Every configuration key with its default and its meaning. Recipes in `configs/` change some of them.

Sizes are [height, width] in pixels; learning rates are per optimizer step; periods are in epochs unless a key says
otherwise. A tuple default means "a list of any length"; the types of all other values are enforced on loading.
"""

from ember_reid.config.node import Config as CN

_C = CN()

_C.OUTPUT_DIR = (
    "runs/default"  # config.yml, log.txt, metrics.jsonl, results.json, checkpoints/ go here
)
_C.OVERWRITE = False  # True: replace a run that OUTPUT_DIR already holds
_C.SEED = 1
_C.DETERMINISTIC = False  # True: only deterministic kernels (slower on a GPU)
_C.DEVICE = "auto"  # auto | cpu | cuda
_C.NUM_PROCESSES = 0  # processes on this machine; 0: one per GPU, or one on the CPU
_C.NUM_THREADS = (
    0  # CPU threads of a process; 0: leave it to torch, several processes share the cores
)

# ----------------------------------------------------------------------------------------------------- model
_C.MODEL = CN()
_C.MODEL.BACKBONE = CN()
_C.MODEL.BACKBONE.NAME = "resnet50"  # see modeling/backbones for the choices
_C.MODEL.BACKBONE.WEIGHTS = "imagenet"  # imagenet (torchvision's, downloaded) | none | a local file
_C.MODEL.BACKBONE.LAST_STRIDE = 1  # stride of the last stage: 1 keeps a 16x8 map from 256x128
_C.MODEL.BACKBONE.WIDTH = (
    1.0  # channels as a multiple of the published ones (ResNets without weights)
)
_C.MODEL.BACKBONE.STEM_RELU = (
    True  # False reproduces reid-strong-baseline's ResNet, which leaves it out
)
_C.MODEL.BACKBONE.STEM_POOL = "padded"  # padded (torchvision) | ceil (FastReID's current code)
_C.MODEL.BACKBONE.LAST_DILATION = 1  # of the last stage of ResNeSt; 2 is FastReID's current code
_C.MODEL.BACKBONE.LAST_RELU = True  # False reproduces VKD's networks: no ReLU in the last block
_C.MODEL.BACKBONE.NON_LOCAL = ()  # non-local blocks per stage, (0, 2, 3, 0) in AGW; () for none
_C.MODEL.BACKBONE.NON_LOCAL_WIDTH = (
    0  # inner channels of such a block; 0: half; 1 is FastReID's slip
)
_C.MODEL.POOL = CN()
_C.MODEL.POOL.NAME = "avg"  # avg | max | avgmax | gem
_C.MODEL.POOL.GEM_P = 3.0
_C.MODEL.POOL.GEM_LEARNABLE = True
_C.MODEL.HEAD = CN()
_C.MODEL.HEAD.NAME = "global"  # global (one embedding) | mgn (eight branches)
_C.MODEL.HEAD.NECK = "bnneck"  # bnneck | none
_C.MODEL.HEAD.EMBEDDING_DIM = 0  # 1x1 reduction before the neck; 0: the backbone's width
_C.MODEL.HEAD.REDUCTION = (
    "linear"  # linear | bn_relu: batch norm and ReLU follow it (OSNet, FastReID's first MGN)
)
_C.MODEL.HEAD.METRIC_FEATURE = "before"  # what the metric losses see: before | after the neck
_C.MODEL.HEAD.CLASSIFIER = "linear"  # linear | cosine (logits = scale * cosine)
_C.MODEL.HEAD.SCALE = 64.0  # of the cosine classifier

# ---------------------------------------------------------------------------------------------------- losses
_C.LOSS = CN()
_C.LOSS.CE = CN()
_C.LOSS.CE.WEIGHT = 1.0
_C.LOSS.CE.EPSILON = 0.1  # label smoothing
_C.LOSS.CE.SMOOTH_OVER = (
    "all"  # all: eps/C on every class | others: eps/(C-1) on the wrong ones (FastReID)
)
_C.LOSS.CE.MARGIN_TYPE = "none"  # none | arcface | cosface | circle; needs the cosine classifier
_C.LOSS.CE.MARGIN = 0.0
_C.LOSS.TRIPLET = CN()
_C.LOSS.TRIPLET.WEIGHT = 1.0
_C.LOSS.TRIPLET.MARGIN = 0.3  # 0: the soft margin log(1 + exp(d_ap - d_an))
_C.LOSS.TRIPLET.MINING = "hard"  # hard | weighted
_C.LOSS.TRIPLET.NORMALIZE = False  # L2-normalize the features first
_C.LOSS.CENTER = CN()
_C.LOSS.CENTER.WEIGHT = 0.0  # 0.0005 in the strong baseline
_C.LOSS.CENTER.LR = 0.5
_C.LOSS.CIRCLE = CN()
_C.LOSS.CIRCLE.WEIGHT = 0.0
_C.LOSS.CIRCLE.MARGIN = 0.25
_C.LOSS.CIRCLE.GAMMA = 128.0
_C.LOSS.COSFACE = CN()
_C.LOSS.COSFACE.WEIGHT = 0.0  # pairwise CosFace
_C.LOSS.COSFACE.MARGIN = 0.25
_C.LOSS.COSFACE.GAMMA = 128.0
_C.LOSS.XBM = (
    CN()
)  # cross-batch memory: the pairwise losses above, between the batch and earlier embeddings
_C.LOSS.XBM.SIZE = 0  # embeddings that are kept; 0: off
_C.LOSS.XBM.WEIGHT = 1.0
_C.LOSS.XBM.START = (
    1000  # iterations before the first is kept, while the network still moves quickly
)
_C.LOSS.FOCAL = CN()
_C.LOSS.FOCAL.WEIGHT = 0.0
_C.LOSS.FOCAL.GAMMA = 2.0

# ---------------------------------------------------------------------------------------------- distillation
# docs/distillation.md explains each term; weights of 0 are off, all others add up.
_C.KD = CN()
_C.KD.TEACHERS = ()  # checkpoints of ours, e.g. ('runs/r101/checkpoints/best.pt',)
_C.KD.TEACHER_STATISTICS = "running"  # batch norms of teachers: running | batch (FastReID, VKD)
_C.KD.STUDENT_WEIGHTS = (
    ""  # start the student from: "" (MODEL.BACKBONE.WEIGHTS) | teacher | a checkpoint
)
_C.KD.REINIT = "last-stage"  # begun anew in it: none | head | last-stage (and head, VKD)
_C.KD.STUDENT_VIEWS = (
    0  # of the INPUT.NUM_FRAMES that teachers see, the student sees so many; 0: all
)
_C.KD.EMA = CN()
_C.KD.EMA.ENABLED = False  # one more teacher: the running average of the student
# Part of the average that each step keeps.
_C.KD.EMA.DECAY = 0.999
_C.KD.EMA.RAMP = True  # decay (1 + i) / (10 + i) in early iterations i; False is FastReID
_C.KD.LOGITS = CN()
_C.KD.LOGITS.WEIGHT = 0.0
_C.KD.LOGITS.KIND = "symmetric"  # symmetric (FastReID) | kl (Hinton, VKD) | mse
_C.KD.LOGITS.TEMPERATURE = 16.0
_C.KD.FEATURE = CN()
_C.KD.FEATURE.WEIGHT = 0.0  # stage maps in front of their ReLU (overhaul); 1e-4 in FastReID
_C.KD.FEATURE.FORM = (
    "intended"  # intended | published: stages 1 to 3 are compared behind their ReLU
)
_C.KD.FEATURE.STAGE_WEIGHTS = (0.125, 0.25, 0.5, 1.0)
_C.KD.FEATURE.EVERY = (
    1  # maps of every n-th image (frame) are compared: cheaper, the same in the mean
)
_C.KD.DISTANCES = CN()
_C.KD.DISTANCES.WEIGHT = 0.0  # all pairwise squared distances of the metric features; 1e-4 in VKD
_C.KD.RELATION = CN()
_C.KD.RELATION.SIMILARITY_WEIGHT = 0.0  # all pairwise cosines of the embeddings
_C.KD.RELATION.DISTANCE_WEIGHT = 0.0  # RKD: distances divided by their mean
_C.KD.RELATION.ANGLE_WEIGHT = 0.0  # RKD: angles of all triplets
_C.KD.EMBEDDING = CN()
_C.KD.EMBEDDING.WEIGHT = 0.0  # 1 - cosine of the embeddings, projected where the widths differ
_C.KD.SELF = CN()
_C.KD.SELF.WEIGHT = 0.0  # shallow stages learn from a deeper one of the same network
_C.KD.SELF.FORM = "described"  # described (mean over images, every learner) | published (see docs)
_C.KD.SELF.TEACHER = 3  # the stage that teaches, counted from 1
_C.KD.SELF.LEARNERS = (1, 2)
_C.KD.SELF.CLASSIFY_WEIGHT = (
    0.0  # cross-entropy of the adapters of all these stages, so that the teacher means something
)

# ----------------------------------------------------------------------------------------------------- input
_C.INPUT = CN()
_C.INPUT.SIZE_TRAIN = (256, 128)
_C.INPUT.SIZE_TEST = (256, 128)
_C.INPUT.INTERPOLATION = "bilinear"  # bilinear | bicubic, antialiased
_C.INPUT.PIXEL_MEAN = (0.485, 0.456, 0.406)  # of RGB values in 0..1
_C.INPUT.PIXEL_STD = (0.229, 0.224, 0.225)
_C.INPUT.FLIP_PROB = 0.5
_C.INPUT.PADDING = 10  # black border, then a random crop of the input size; 0: off
_C.INPUT.RE_PROB = 0.5  # random erasing
_C.INPUT.RE_FILL = (
    "mean"  # mean (gray of PIXEL_MEAN, 0 after normalization) | published (see data/augment.py)
)
_C.INPUT.AUTOAUG_PROB = 0.0  # AutoAugment with the ReID policy table (data/strong_augmentations.py)
_C.INPUT.AFFINE_PROB = 0.0  # rotation to 10 degrees, scale 0.9..1.1, shear 0.1
_C.INPUT.AUGMIX_PROB = 0.0  # AugMix
_C.INPUT.PATCH_PROB = 0.0  # random patch: a box of another image
_C.INPUT.CUTOUT_PROB = 0.0  # a gray square, half as wide as the image
_C.INPUT.JITTER_PROB = 0.0  # color jitter
_C.INPUT.JITTER = (0.15, 0.15, 0.1, 0.1)  # strength: brightness, contrast, saturation, hue
_C.INPUT.NUM_FRAMES = 1  # frames or views of a training sample; 1: one picture, [B,3,H,W]
_C.INPUT.NUM_FRAMES_TEST = 0  # frames of a tested tracklet (images have one); 0: NUM_FRAMES
_C.INPUT.FRAME_SAMPLING = (
    "chunk"  # training: even | chunk (random in each) | multiview | multiview-cameras
)

# ------------------------------------------------------------------------------------------------------ data
_C.DATASETS = CN()
_C.DATASETS.ROOT = (
    "datasets"  # a benchmark NAME lies in ROOT/NAME or where its authors' folder name says
)
_C.DATASETS.NAMES = (
    "market1501",
)  # trained on, together; NAME, NAME:/path, csv:/path/list.csv, folder:/path
_C.DATASETS.TESTS = ()  # tested on, one after another; (): the names trained on
_C.DATALOADER = CN()
# identity: P x K, one pass per epoch | identity-once: every identity once per epoch (VKD)
# identity-fastreid: P x K from an endless stream, floor(N / B) batches per epoch (FastReID)
# identity-cameras: the same count; identities uniform, images from different cameras (FastReID of
# May 2020) | random: no identities
_C.DATALOADER.SAMPLER = "identity"
_C.DATALOADER.NUM_INSTANCES = 4  # K, images of an identity in a batch
_C.DATALOADER.NUM_WORKERS = 4  # decoding processes while there is no cache
_C.DATALOADER.CACHE = (
    "auto"  # auto | device (a GPU's memory) | ram | none: decoded uint8 images are kept
)
_C.DATALOADER.CACHE_GIB = 4.0  # auto: in memory when all images fit into this much
_C.DATALOADER.CACHE_SHARE = (
    0.3  # auto: in a GPU's memory when they fit into this part of what is free there
)
_C.DATALOADER.SKIP_BROKEN = False  # True: go on without unreadable images, and say how many

# ---------------------------------------------------------------------------------------------------- solver
_C.SOLVER = CN()
_C.SOLVER.OPTIMIZER = "adam"  # adam | adamw | sgd
_C.SOLVER.FUSED = (
    "auto"  # kernels of the optimizer: auto (torch's) | torch | apex (NVIDIA's, on GPUs) | none
)
_C.SOLVER.BASE_LR = 3.5e-4
_C.SOLVER.BASE_BATCH = (
    0  # the batch that BASE_LR is meant for: it is scaled to IMS_PER_BATCH; 0: as it is
)
_C.SOLVER.BIAS_LR_FACTOR = 1.0
_C.SOLVER.HEAD_LR_FACTOR = 1.0
_C.SOLVER.WEIGHT_DECAY = 5e-4
_C.SOLVER.WEIGHT_DECAY_BIAS = 5e-4
_C.SOLVER.WEIGHT_DECAY_NORM = 5e-4
_C.SOLVER.MOMENTUM = 0.9
_C.SOLVER.NESTEROV = False
_C.SOLVER.MAX_EPOCHS = 120
_C.SOLVER.IMS_PER_BATCH = 64  # global: over all processes, per optimizer step
_C.SOLVER.ACCUMULATION_STEPS = 1  # forward passes per optimizer step
_C.SOLVER.SCHEDULE = "multistep"  # multistep | cosine
_C.SOLVER.SCHEDULE_BY = "epoch"  # epoch: one value an epoch | iteration: a smooth one
_C.SOLVER.STEPS = (40, 70)  # epochs
_C.SOLVER.STEPS_AFTER_WARMUP = (
    False  # True: STEPS are counted from the end of the warm-up, as FastReID does
)
_C.SOLVER.GAMMA = 0.1
_C.SOLVER.ETA_MIN_FACTOR = 0.01  # cosine: the last learning rate, as a part of BASE_LR
_C.SOLVER.DELAY_EPOCHS = 0  # cosine: epochs at BASE_LR before the descent
_C.SOLVER.WARMUP_EPOCHS = 10.0
_C.SOLVER.WARMUP_FACTOR = 0.01
_C.SOLVER.WARMUP_METHOD = "linear"  # linear | constant | exp
_C.SOLVER.CLIP_NORM = 0.0  # largest norm of all gradients together; 0: off
_C.SOLVER.FREEZE = ()  # names of child modules that stay as they are for the first FREEZE_ITERS iterations
_C.SOLVER.FREEZE_ITERS = 0
# Part of the weights' running average that each step keeps, e.g. 0.999; 0: off. The average is tested.
_C.SOLVER.EMA_DECAY = 0.0
_C.SOLVER.MINING = (
    "global"  # pairs for metric losses: global (all processes and accumulated parts) | local
)
_C.SOLVER.PRECISE_BN_ITERS = (
    0  # batches over which batch-norm statistics are taken anew before the last evaluation
)
_C.SOLVER.FP16 = False  # mixed precision
_C.SOLVER.AMP_DTYPE = "float16"  # float16 | bfloat16
_C.SOLVER.COMPILE = (
    "auto"  # of the step: auto | none | default | reduce-overhead (CUDA graphs; auto: on one GPU)
)
_C.SOLVER.LOG_PERIOD = 20  # iterations
_C.SOLVER.EVAL_PERIOD = 40
_C.SOLVER.CHECKPOINT_PERIOD = 1  # `last.pt`

# ------------------------------------------------------------------------------------------------------ test
_C.TEST = CN()
_C.TEST.IMS_PER_BATCH = 128
_C.TEST.WEIGHT = ""  # the checkpoint that `main.py -t` tests
_C.TEST.NECK_FEAT = "after"  # embedding before | after the neck
_C.TEST.METRIC = "cosine"  # cosine | euclidean
_C.TEST.FLIP = False  # average the embeddings of an image and its mirror image
_C.TEST.MAX_RANK = 50
_C.TEST.VALIDATION = (
    0.0  # this part of the training identities is held out, and checkpoints are chosen on it
)
_C.TEST.PROTOCOL = "auto"  # auto (the dataset's own) | cross-camera | all | ...: docs/datasets.md
_C.TEST.RE_RANKING = False
_C.TEST.RE_RANK = CN()
_C.TEST.RE_RANK.K1 = 20
_C.TEST.RE_RANK.K2 = 6
_C.TEST.RE_RANK.LAMBDA = 0.3
_C.TEST.AQE = CN()  # average query expansion
_C.TEST.AQE.K = 0  # neighbors, itself included; 0: off
_C.TEST.AQE.ALPHA = 3.0
_C.TEST.AVERAGE_PRECISION = (
    "mean"  # mean (the strong baseline's) | trapezoid (VKD's published tables)
)
_C.TEST.FPRS = ()  # false positive rates, (0.01, 0.1): adds TPR at FPR and, in an open set, TPIR at FPIR
_C.TEST.MEMORY_GIB = 2.0  # budget of distances and re-ranking

# ------------------------------------------------------------------------------------------------------- log
_C.LOG = CN()
_C.LOG.TENSORBOARD = True
_C.LOG.VISDOM = False
_C.LOG.VISDOM_SERVER = "http://localhost"
_C.LOG.VISDOM_PORT = 8097
_C.LOG.PROGRESS = True  # a progress bar on a terminal
_C.LOG.REPORT = False  # True: write OUTPUT_DIR/report.html at the end, as `python -m tools.report OUTPUT_DIR` does


def get_defaults() -> CN:
    """A fresh copy of the default configuration."""
    return _C.clone()
