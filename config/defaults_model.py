"""Defaults of the network and its losses; see config/defaults.py."""

from ember_reid.config.node import Config as CN

MODEL = CN()
MODEL.BACKBONE = CN()
# A backbone of modeling/backbones, or timm:NAME.
MODEL.BACKBONE.NAME = "resnet50"
# imagenet (torchvision's weights, downloaded), none, or a local file.
MODEL.BACKBONE.WEIGHTS = "imagenet"
# Accept a weight file that does not match the backbone completely, with a warning.
MODEL.BACKBONE.PARTIAL = False
# Stride of the last stage: 1 gives a 16x8 map for a 256x128 image, 2 an 8x4 map.
MODEL.BACKBONE.LAST_STRIDE = 1
# Channels as a multiple of the published ones (ResNets without weights).
MODEL.BACKBONE.WIDTH = 1.0
# ReLU in the stem of a ResNet. False reproduces reid-strong-baseline, which omits it.
MODEL.BACKBONE.STEM_RELU = True
# Max pooling in the stem: padded (torchvision) or ceil (FastReID since November 2020).
MODEL.BACKBONE.STEM_POOL = "padded"
# Dilation of the last stage of ResNeSt: 2 in FastReID since December 2020.
MODEL.BACKBONE.LAST_DILATION = 1
# ReLU at the end of the last block. False reproduces VKD's networks.
MODEL.BACKBONE.LAST_RELU = True
# Non-local blocks per stage, (0, 2, 3, 0) in AGW; () for none.
MODEL.BACKBONE.NON_LOCAL = ()
# Inner channels of a non-local block; 0: half of the stage's channels. FastReID has 1.
MODEL.BACKBONE.NON_LOCAL_WIDTH = 0
# SOLIDER's networks: 0 is appearance, 1 semantics. 0.2 is SOLIDER's value for re-identification.
MODEL.BACKBONE.SEMANTIC_WEIGHT = 0.2
# More arguments of a timm network as YAML: "{depth: 6}".
MODEL.BACKBONE.ARGS = ""
# Distance of the patches of a vision transformer in pixels; 0: their size. TransReID: 12.
MODEL.BACKBONE.PATCH_STRIDE = 0
# Resampling of position embeddings: auto (as the program that wrote the file), or bilinear
# (TransReID).
MODEL.BACKBONE.POSITIONS = "auto"
# Stochastic depth of timm networks: probability of dropping the last residual branch.
MODEL.BACKBONE.DROP_PATH = 0.0
# Recompute activations of timm networks in the backward pass: less memory, more time.
MODEL.BACKBONE.GRAD_CHECKPOINT = False
# Keep the patch embedding of a transformer as it was loaded (MoCo v3).
MODEL.BACKBONE.FREEZE_PATCH_EMBED = False
# Low-rank adapters in the linear layers of the backbone, whose own weights are then frozen.
MODEL.LORA = CN()
# Rank of the adapters; 0: no adapters.
MODEL.LORA.RANK = 0
# The adapters are multiplied by ALPHA / RANK.
MODEL.LORA.ALPHA = 16.0
# Dropout of their input.
MODEL.LORA.DROPOUT = 0.0
# Last part of the names of the linear layers; () for all of them.
MODEL.LORA.TARGETS = ("qkv", "proj", "fc1", "fc2")
# Side information embedding of TransReID: a vector per camera (and viewpoint) is added to tokens.
MODEL.SIE = CN()
# Number of cameras in the training set; 0: no embedding.
MODEL.SIE.CAMERAS = 0
# Number of viewpoints, in addition to cameras; 0: cameras only. VeRi-776 has 8 (see datasets.md).
MODEL.SIE.VIEWS = 0
# Factor on the embedding.
MODEL.SIE.WEIGHT = 3.0
# The tokens that receive it: all (TransReID), or class: the class token only (CLIP-ReID).
MODEL.SIE.TOKENS = "all"
# Jigsaw patch module of TransReID, for MODEL.HEAD.NAME jpm.
MODEL.JPM = CN()
# Groups of patches, each with a local feature.
MODEL.JPM.PARTS = 4
# Whether patches are shifted and shuffled before they are divided.
MODEL.JPM.SHUFFLE = True
# The patches are rotated by SHIFT - 1 positions, as in the authors' program.
MODEL.JPM.SHIFT = 5
# Runs of patches that are interleaved.
MODEL.JPM.GROUPS = 2
# Weight of the losses of the global feature; those of the local features share the rest.
MODEL.JPM.GLOBAL_WEIGHT = 0.5
# MixStyle: mixes feature statistics of training images, for domains that are not in the training.
MODEL.MIXSTYLE = CN()
# Stages of a convolutional backbone after which styles are mixed, such as (1, 2); (): off.
MODEL.MIXSTYLE.STAGES = ()
# Probability that a layer mixes a batch.
MODEL.MIXSTYLE.PROB = 0.5
# The weights of a mixture have the distribution Beta(ALPHA, ALPHA).
MODEL.MIXSTYLE.ALPHA = 0.1
# Images are mixed with any others (random), with those of other cameras, or other datasets.
MODEL.MIXSTYLE.MIX = "random"
MODEL.POOL = CN()
# Global pooling: average, maximum, their sum, or generalized mean.
MODEL.POOL.NAME = "avg"
# Exponent of generalized-mean pooling.
MODEL.POOL.GEM_P = 3.0
# Whether the exponent is trained.
MODEL.POOL.GEM_LEARNABLE = True
MODEL.HEAD = CN()
# global: one embedding. mgn: eight branches over parts of the image. jpm: see MODEL.JPM.
# clip: class token and its projection (CLIP-ReID). pass: class and part tokens (PASS).
MODEL.HEAD.NAME = "global"
# Output of a transformer: class (class token), patches (pooled), class+patches (concatenation),
# auto (the class token if there is one).
MODEL.HEAD.TOKENS = "auto"
# bnneck: batch normalization between the pooled feature and the classifier.
MODEL.HEAD.NECK = "bnneck"
# Channels of a 1x1 reduction before the neck; 0: no reduction.
MODEL.HEAD.EMBEDDING_DIM = 0
# linear, or bn_relu: batch norm and ReLU follow the reduction (OSNet, FastReID's first MGN).
MODEL.HEAD.REDUCTION = "linear"
# The feature that the metric losses use: before or after the neck.
MODEL.HEAD.METRIC_FEATURE = "before"
# linear, or cosine (logits = scale * cosine).
MODEL.HEAD.CLASSIFIER = "linear"
# Scale of the cosine classifier.
MODEL.HEAD.SCALE = 64.0

# Weights of 0 turn a loss off; all others are added.
LOSS = CN()
# Cross-entropy over the training identities.
LOSS.CE = CN()
LOSS.CE.WEIGHT = 1.0
# Label smoothing.
LOSS.CE.EPSILON = 0.1
# all: epsilon/C on every class. others: epsilon/(C-1) on the wrong classes (FastReID).
LOSS.CE.SMOOTH_OVER = "all"
# Margin of the cosine classifier.
LOSS.CE.MARGIN_TYPE = "none"
LOSS.CE.MARGIN = 0.0
LOSS.TRIPLET = CN()
LOSS.TRIPLET.WEIGHT = 1.0
# 0: the soft margin log(1 + exp(d_ap - d_an)).
LOSS.TRIPLET.MARGIN = 0.3
# hard: the hardest positive and negative. weighted: softmax-weighted means of all.
LOSS.TRIPLET.MINING = "hard"
# Weights of "weighted": exact (softmax), or published (FastReID's computation, whose recipes with
# published scores need it).
LOSS.TRIPLET.FORM = "exact"
# Whether features are L2-normalized first.
LOSS.TRIPLET.NORMALIZE = False
LOSS.CENTER = CN()
# 0.0005 in reid-strong-baseline.
LOSS.CENTER.WEIGHT = 0.0
# Learning rate of the centers.
LOSS.CENTER.LR = 0.5
# Pairwise circle loss.
LOSS.CIRCLE = CN()
LOSS.CIRCLE.WEIGHT = 0.0
LOSS.CIRCLE.MARGIN = 0.25
LOSS.CIRCLE.GAMMA = 128.0
# Pairwise CosFace loss.
LOSS.COSFACE = CN()
LOSS.COSFACE.WEIGHT = 0.0
LOSS.COSFACE.MARGIN = 0.25
LOSS.COSFACE.GAMMA = 128.0
# Cross-batch memory: the pairwise losses above, between the batch and earlier embeddings.
LOSS.XBM = CN()
# Number of embeddings in the memory; 0: off.
LOSS.XBM.SIZE = 0
LOSS.XBM.WEIGHT = 1.0
# Iterations before embeddings are stored; the network changes quickly at first.
LOSS.XBM.START = 1000
LOSS.PLUGIN = CN()
# A loss that a plug-in registers; empty: none.
LOSS.PLUGIN.NAME = ""
LOSS.PLUGIN.WEIGHT = 1.0
# Its arguments as YAML: "{margin: 0.2}".
LOSS.PLUGIN.ARGS = ""
LOSS.PML = CN()
# A loss of pytorch-metric-learning on the metric features, such as SupCon, MultiSimilarity or
# ProxyAnchor; empty: none.
LOSS.PML.NAME = ""
LOSS.PML.WEIGHT = 1.0
# Its arguments as YAML: "{temperature: 0.1}". num_classes and embedding_size are added.
LOSS.PML.ARGS = ""
