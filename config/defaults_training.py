"""Defaults of optimization, distillation and adaptation; see config/defaults.py."""

from ember_reid.config.node import Config as CN

# See docs/explanation/distillation.md. A weight of 0 turns a term off; all others are added.
KD = CN()
# Checkpoints of this program, e.g. ('runs/r101/checkpoints/best.pt',).
KD.TEACHERS = ()
# Batch norms of teachers: running statistics, or those of the batch (FastReID 1.0, VKD).
KD.TEACHER_STATISTICS = "running"
# Initial weights of the student: empty (MODEL.BACKBONE.WEIGHTS), teacher, or a checkpoint.
KD.STUDENT_WEIGHTS = ""
# What is initialized randomly in them: none, head, or last-stage (with the head, as in VKD).
KD.REINIT = "last-stage"
# Views that the student sees, of the INPUT.NUM_FRAMES that teachers see; 0: all.
KD.STUDENT_VIEWS = 0
# One more teacher: the running average of the student.
KD.EMA = CN()
KD.EMA.ENABLED = False
# Part of the average that each step keeps.
KD.EMA.DECAY = 0.999
# Whether the decay is at most (1 + i) / (10 + i) in iteration i. False in FastReID.
KD.EMA.RAMP = True
KD.LOGITS = CN()
KD.LOGITS.WEIGHT = 0.0
# symmetric (FastReID 1.0), kl (Hinton, VKD, DistillReID), or mse.
KD.LOGITS.KIND = "symmetric"
KD.LOGITS.TEMPERATURE = 16.0
# Maps of the stages before their ReLU (overhaul).
KD.FEATURE = CN()
# 1e-4 in FastReID.
KD.FEATURE.WEIGHT = 0.0
# published: stages 1 to 3 are compared after their ReLU, as in FastReID.
KD.FEATURE.FORM = "intended"
KD.FEATURE.STAGE_WEIGHTS = (0.125, 0.25, 0.5, 1.0)
# Compare the maps of every n-th image (frame): cheaper, with the same expected value.
KD.FEATURE.EVERY = 1
# All pairwise squared distances of the metric features.
KD.DISTANCES = CN()
# 1e-4 in VKD.
KD.DISTANCES.WEIGHT = 0.0
KD.RELATION = CN()
# All pairwise cosines of the embeddings.
KD.RELATION.SIMILARITY_WEIGHT = 0.0
# RKD: distances divided by their mean.
KD.RELATION.DISTANCE_WEIGHT = 0.0
# RKD: angles of all triplets.
KD.RELATION.ANGLE_WEIGHT = 0.0
KD.EMBEDDING = CN()
# 1 - cosine of the embeddings, projected where the widths differ.
KD.EMBEDDING.WEIGHT = 0.0
# Self-distillation: shallow stages learn from a deeper one of the same network.
KD.SELF = CN()
KD.SELF.WEIGHT = 0.0
# described: mean over images, all students. published: as the program computes it.
KD.SELF.FORM = "described"
# The stage that teaches, counted from 1.
KD.SELF.TEACHER = 3
# The stages that learn.
KD.SELF.LEARNERS = (1, 2)
# Weight of a cross-entropy on the adapters of all these stages.
KD.SELF.CLASSIFY_WEIGHT = 0.0

SOLVER = CN()
# adam, adamw, sgd, or muon: Muon for the convolutions of the backbone, AdamW for the rest.
SOLVER.OPTIMIZER = "adam"
# Optimizer kernels: auto (torch chooses), torch, apex (NVIDIA's, on GPUs), or none.
SOLVER.FUSED = "auto"
SOLVER.BASE_LR = 3.5e-4
# Learning rate of Muon: the relative change of the weights of a convolution per step. It is not
# scaled by BASE_BATCH.
SOLVER.MUON_LR = 0.1
# Batch size for which BASE_LR is given; it is scaled to IMS_PER_BATCH. 0: no scaling.
SOLVER.BASE_BATCH = 0
# Learning rate of biases, as a multiple.
SOLVER.BIAS_LR_FACTOR = 1.0
# Learning rate of the head, as a multiple.
SOLVER.HEAD_LR_FACTOR = 1.0
# Learning rate of a layer, as a multiple of that of the next one (BEiT). The head has BASE_LR, the
# last block of the backbone BASE_LR * LAYER_DECAY, and so on. 1: the same rate everywhere.
SOLVER.LAYER_DECAY = 1.0
SOLVER.WEIGHT_DECAY = 5e-4
SOLVER.WEIGHT_DECAY_BIAS = 5e-4
SOLVER.WEIGHT_DECAY_NORM = 5e-4
# Of position embeddings, class tokens and layer scales.
SOLVER.WEIGHT_DECAY_EMBEDDING = 0.0
# Momentum of SGD and Muon.
SOLVER.MOMENTUM = 0.9
SOLVER.NESTEROV = False
SOLVER.MAX_EPOCHS = 120
# Images per optimizer step over all processes.
SOLVER.IMS_PER_BATCH = 64
# Forward passes per optimizer step.
SOLVER.ACCUMULATION_STEPS = 1
# multistep, cosine, or linear. "linear" with WARMUP_EPOCHS and DELAY_EPOCHS is a trapezoid.
SOLVER.SCHEDULE = "multistep"
# epoch: one learning rate per epoch. iteration: it changes in every iteration.
SOLVER.SCHEDULE_BY = "epoch"
# Epochs after which the learning rate is multiplied by GAMMA.
SOLVER.STEPS = (40, 70)
# Count STEPS from the end of the warm-up, as FastReID does since version 1.0.
SOLVER.STEPS_AFTER_WARMUP = False
SOLVER.GAMMA = 0.1
# Cosine and linear schedule: the last learning rate, as a part of BASE_LR.
SOLVER.ETA_MIN_FACTOR = 0.01
# Cosine and linear schedule: epochs at BASE_LR before the descent.
SOLVER.DELAY_EPOCHS = 0
# Cosine schedule: compute the descent from epoch 0, as if there were no warm-up (TransReID).
SOLVER.COSINE_FROM_START = False
# Cosine schedule: it starts in epoch 0 and the warm-up replaces its first epochs (TransReID,
# SOLIDER), instead of starting after the warm-up.
SOLVER.COSINE_FROM_ZERO = False
# Epochs of warm-up; fractions are allowed.
SOLVER.WARMUP_EPOCHS = 10.0
# First learning rate of the warm-up, as a part of BASE_LR.
SOLVER.WARMUP_FACTOR = 0.01
SOLVER.WARMUP_METHOD = "linear"
# Largest norm of all gradients together; 0: no clipping.
SOLVER.CLIP_NORM = 0.0
# Child modules of the network that do not change in the first FREEZE_ITERS iterations.
SOLVER.FREEZE = ()
SOLVER.FREEZE_ITERS = 0
# Part of the weights' running average that each step keeps, e.g. 0.999; the average is tested.
# 0: no average.
SOLVER.EMA_DECAY = 0.0
# Pairs for metric losses: global (all processes and accumulated parts) or local.
SOLVER.MINING = "global"
# Batches from which batch-norm statistics are estimated before the last evaluation; 0: off.
SOLVER.PRECISE_BN_ITERS = 0
# Mixed precision; without it, all is computed in float32 (not in TF32). AMP_DTYPE is its type on
# a GPU.
SOLVER.FP16 = False
SOLVER.AMP_DTYPE = "float16"
# Precision of mixed precision on a CPU: auto (bfloat16 if the processor has instructions for it,
# else float32), float32 or bfloat16.
SOLVER.CPU_PRECISION = "auto"
# Wide convolutions that train in float32 on a CPU: fast (Winograd's algorithm and matrix products,
# see layers.fast_convolutions) or torch.
SOLVER.CPU_CONVOLUTIONS = "fast"
# How a training step is executed: graph (one CUDA graph), compile (torch.compile), eager, or auto
# (graph on GPUs, eager on a CPU). A step that cannot be captured runs eagerly; the log says why.
SOLVER.STEP = "auto"
# Iterations between two log lines.
SOLVER.LOG_PERIOD = 20
# Epochs between two evaluations.
SOLVER.EVAL_PERIOD = 40
# Epochs between two writes of last.pt.
SOLVER.CHECKPOINT_PERIOD = 1
# Least number of seconds between two of them, so that short epochs do not write all the time. The
# first and the last epoch are always saved; 0: no limit.
SOLVER.CHECKPOINT_MIN_SECONDS = 10.0

# How the images of DATASETS.UNLABELED are learned. See docs/how-to/adapt.md.
ADAPT = CN()
# cluster-contrast (arXiv 2103.11568), spcl (2006.02713), cap (camera-aware proxies, 2012.10674), or
# mmt (Mutual Mean-Teaching, 2001.01526).
ADAPT.METHOD = "cluster-contrast"
# Weight of the losses of unlabeled images; those of labeled images are in LOSS.
ADAPT.WEIGHT = 1.0
# Initial weights of the network: a checkpoint, such as one that was trained on labeled images. Its
# classifier is not used.
ADAPT.WEIGHTS = ""
# Separate batch norms for labeled images; those of unlabeled images are tested and saved.
ADAPT.DOMAIN_NORM = False
# Epochs between two clusterings.
ADAPT.PERIOD = 1
# Batches per epoch; 0: so many that they contain as many unlabeled images as there are.
ADAPT.ITERS = 0
# Divides the cosines in contrastive losses.
ADAPT.TEMPERATURE = 0.05
# Part of an entry of the memory that each update keeps.
ADAPT.MOMENTUM = 0.1
# How a batch updates the entry of a cluster: image by image (each), or the least similar one
# (hardest). cluster-contrast only.
ADAPT.UPDATE = "each"
ADAPT.CLUSTER = CN()
ADAPT.CLUSTER.ALGORITHM = "dbscan"
# Jaccard distance: neighbors (dbscan), the largest one that counts (hdbscan), or the largest mean
# of two clusters that are merged (agglomeration).
ADAPT.CLUSTER.RADIUS = 0.6
# spcl: the smaller and the larger radius differ by this number.
ADAPT.CLUSTER.RADIUS_GAP = 0.02
# Neighbors of a core image, with itself, and the smallest cluster of hdbscan and agglomeration.
ADAPT.CLUSTER.MIN_SAMPLES = 4
# Subtract the mean of each camera before the search for neighbors. No published program does this.
ADAPT.CLUSTER.CENTER_CAMERAS = False
# Neighbors of an image, with itself, and those over which they are averaged.
ADAPT.CLUSTER.K1 = 30
ADAPT.CLUSTER.K2 = 6
ADAPT.MMT = CN()
# Initial weights of the second student, such as those of another seed; empty: ADAPT.WEIGHTS.
ADAPT.MMT.WEIGHTS = ""
# Weights of the losses with soft labels; those with hard labels have one minus these.
ADAPT.MMT.SOFT_CE = 0.5
ADAPT.MMT.SOFT_TRIPLET = 0.8
ADAPT.CAP = CN()
# Clusterings before the proxies of different cameras are compared.
ADAPT.CAP.START = 5
# Proxies of other clusters that an image is compared with: the nearest ones.
ADAPT.CAP.NEGATIVES = 50
