"""Records, dataset readers, image decoding, augmentation, samplers and loaders."""

from ember_reid.data.batch import Batch
from ember_reid.data.datasets import DATASETS, load_splits
from ember_reid.data.records import Record, Splits

__all__ = ["DATASETS", "Batch", "Record", "Splits", "load_splits"]
