"""Records, dataset readers, image decoding, augmentation, samplers and loaders."""

from data.batch import Batch
from data.datasets import DATASETS, load_splits
from data.records import Record, Splits

__all__ = ["DATASETS", "Batch", "Record", "Splits", "load_splits"]
