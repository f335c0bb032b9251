"""Every configuration key with its default and its meaning; recipes in `configs/` change some.

The comment above a key documents it, also in docs/reference/configuration.md. Sizes are
[height, width] in pixels; learning rates are per optimizer step; periods are in epochs unless a
key says otherwise. A tuple may have any length where config/schema.py does not fix it. The types
of all other values are enforced, and config/schema.py gives the range of each key.

MODEL and LOSS are in config/defaults_model.py, SOLVER, KD and ADAPT in config/defaults_training.py.
"""

from ember_reid.config.defaults_model import LOSS, MODEL
from ember_reid.config.defaults_training import ADAPT, KD, SOLVER
from ember_reid.config.node import Config as CN

_C = CN()

# Folder of config.yml, log.txt, metrics.jsonl, results.csv, results.json and checkpoints/.
_C.OUTPUT_DIR = "runs/default"
# Whether a run that OUTPUT_DIR already contains is replaced.
_C.OVERWRITE = False
_C.SEED = 1
# Use deterministic kernels only (slower on a GPU).
_C.DETERMINISTIC = False
_C.DEVICE = "auto"
# Processes on this machine; 0: one per GPU, or one on the CPU.
_C.NUM_PROCESSES = 0
# CPU threads per process; 0: torch's choice, but at most the CPUs that the process may use, which
# several processes share equally.
_C.NUM_THREADS = 0

# Plug-ins to import: modules, or entry points of the group ember_reid.plugins. They can execute
# any code, so only a recipe or the command line can name them, never a checkpoint.
_C.IMPORTS = ()
# Handlers of plug-ins, attached in this order.
_C.HANDLERS = ()

_C.MODEL = MODEL
_C.LOSS = LOSS
_C.KD = KD
_C.ADAPT = ADAPT

_C.INPUT = CN()
_C.INPUT.SIZE_TRAIN = (256, 128)
_C.INPUT.SIZE_TEST = (256, 128)
# Progressive resizing: sizes of the training images as parts of SIZE_TRAIN, one after another, such
# as (0.5, 1.0). Teachers see these sizes as well.
_C.INPUT.SCALES = (1.0,)
# Parts of the training after which the next of SCALES is used: one fewer than SCALES.
_C.INPUT.SCALE_STEPS = ()
# Antialiased resizing.
_C.INPUT.INTERPOLATION = "bilinear"
# Mean of RGB values in 0..1.
_C.INPUT.PIXEL_MEAN = (0.485, 0.456, 0.406)
# Standard deviation of RGB values in 0..1.
_C.INPUT.PIXEL_STD = (0.229, 0.224, 0.225)
# Horizontal flip.
_C.INPUT.FLIP_PROB = 0.5
# Width of a black border, followed by a random crop of the input size; 0: off.
_C.INPUT.PADDING = 10
# Random erasing.
_C.INPUT.RE_PROB = 0.5
# Smallest and largest aspect (height / width) of the erased rectangle.
_C.INPUT.RE_ASPECT = (0.3, 1 / 0.3)
# mean: gray of PIXEL_MEAN, 0 after normalization. published: see data/augment.py.
_C.INPUT.RE_FILL = "mean"
# AutoAugment with the ReID policy table (data/strong_augmentations.py).
_C.INPUT.AUTOAUG_PROB = 0.0
# 0: AUTOAUG_PROB is constant. D: it is multiplied by (1 - 1 / D)^n at the n-th image of the run, as
# in FastReID of 2020, where D is the total_iter of AutoAugment times the loader processes.
_C.INPUT.AUTOAUG_DECAY = 0
# Rotation up to 10 degrees, scale 0.9..1.1, shear 0.1.
_C.INPUT.AFFINE_PROB = 0.0
_C.INPUT.AUGMIX_PROB = 0.0
# Random patch: a box of another image.
_C.INPUT.PATCH_PROB = 0.0
# Color jitter.
_C.INPUT.JITTER_PROB = 0.0
# Strength of color jitter: brightness, contrast, saturation, hue.
_C.INPUT.JITTER = (0.15, 0.15, 0.1, 0.1)
# Frames or views of a training sample; 1: single images, [B, 3, H, W].
_C.INPUT.NUM_FRAMES = 1
# Frames of a tested tracklet (images have one); 0: NUM_FRAMES.
_C.INPUT.NUM_FRAMES_TEST = 0
# Training frames: even, chunk (a random one of each chunk), multiview, or multiview-cameras.
_C.INPUT.FRAME_SAMPLING = "chunk"

_C.DATASETS = CN()
# A benchmark NAME is in ROOT/NAME or in the folder that its authors distribute.
_C.DATASETS.ROOT = "datasets"
# Training sets, used together: NAME, NAME:/path, csv:/path/list.csv, or folder:/path.
_C.DATASETS.NAMES = ("market1501",)
# Training images without labels: unlabeled:NAME (a dataset whose labels are not used),
# csv:/path/list.csv, or folder:/path. See docs/how-to/adapt.md.
_C.DATASETS.UNLABELED = ()
# Test sets, scored one after another; (): the training sets' own.
_C.DATASETS.TESTS = ()
_C.DATALOADER = CN()
# identity: P x K, one pass per epoch. identity-once: each identity once per epoch (VKD).
# identity-fastreid: P x K from an endless stream, floor(N / B) batches per epoch (FastReID).
# identity-cameras: the same count; uniform identities, images from different cameras (FastReID in
# May 2020). identity-domains: the same count; P is divided equally over the training datasets, and
# the images of an identity alternate between cameras. random: without identities.
_C.DATALOADER.SAMPLER = "identity"
# K, the images per identity in a batch.
_C.DATALOADER.NUM_INSTANCES = 4
# Decoding processes while there is no cache.
_C.DATALOADER.NUM_WORKERS = 4
# Where decoded uint8 images are kept: auto, device (a GPU's memory), ram, or none.
_C.DATALOADER.CACHE = "auto"
# auto: in memory if all images fit into this many GiB.
_C.DATALOADER.CACHE_GIB = 4.0
# auto: in a GPU's memory if all images fit into this part of its free memory.
_C.DATALOADER.CACHE_SHARE = 0.3
# Leave out unreadable images and log their number.
_C.DATALOADER.SKIP_BROKEN = False

_C.SOLVER = SOLVER

_C.TEST = CN()
_C.TEST.IMS_PER_BATCH = 128
# The checkpoint that `main.py -t` tests.
_C.TEST.WEIGHT = ""
# The embedding before or after the neck.
_C.TEST.NECK_FEAT = "after"
_C.TEST.METRIC = "cosine"
# Average the embeddings of an image and its mirror image.
_C.TEST.FLIP = False
# Length of the CMC curve.
_C.TEST.MAX_RANK = 50
# Part of the training identities that is held out to choose checkpoints.
_C.TEST.VALIDATION = 0.0
# What selects best.pt: score (mAP of the held-out identities, or of the first test set) or, without
# labels, silhouette or consistency of the clusters of the unlabeled images.
_C.TEST.SELECT = "score"
# auto is the dataset's own protocol; docs/reference/datasets.md describes the others.
_C.TEST.PROTOCOL = "auto"
# Report k-reciprocal re-ranking as well.
_C.TEST.RE_RANKING = False
_C.TEST.RE_RANK = CN()
_C.TEST.RE_RANK.K1 = 20
_C.TEST.RE_RANK.K2 = 6
_C.TEST.RE_RANK.LAMBDA = 0.3
# Average query expansion.
_C.TEST.AQE = CN()
# Neighbors, including the image itself; 0: off.
_C.TEST.AQE.K = 0
_C.TEST.AQE.ALPHA = 3.0
# mean (reid-strong-baseline, FastReID) or trapezoid (VKD's published tables).
_C.TEST.AVERAGE_PRECISION = "mean"
# False positive rates such as (0.01, 0.1): report TPR at FPR and, in an open set, TPIR at FPIR.
_C.TEST.FPRS = ()
# Memory budget of distances and re-ranking.
_C.TEST.MEMORY_GIB = 2.0

_C.LOG = CN()
# Experiment trackers: tensorboard, visdom, wandb, mlflow, clearml, neptune, polyaxon; (): none.
_C.LOG.TO = ("tensorboard",)
# The project (experiment in MLflow) that contains the runs of this program.
_C.LOG.PROJECT = "ember-reid"
_C.LOG.VISDOM_SERVER = "http://localhost"
_C.LOG.VISDOM_PORT = 8097
# A progress bar on a terminal.
_C.LOG.PROGRESS = True
# Write OUTPUT_DIR/report.html at the end, as `python -m tools.report RUN_DIR` does.
_C.LOG.REPORT = False


def get_defaults() -> CN:
    """Return a new copy of the default configuration."""
    return _C.clone()
