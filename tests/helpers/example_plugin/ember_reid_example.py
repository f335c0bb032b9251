"""A plug-in for ember-reid: a backbone, a head, a loss, a dataset and a handler."""

import logging
from pathlib import Path

import torch
from ember_reid.data.records import Record, Splits
from ember_reid.modeling import ReidOutput
from ignite.engine import Events
from torch import nn

from ember_reid import plugins

logger = logging.getLogger("ember.example")


class SmallBackbone(nn.Module):
    """Images [N, 3, H, W] to two stage maps [N, C_i, H_i, W_i]."""

    channels = (8, 16)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, images):
        first = self.stem(images)
        return first, self.body(first)


plugins.register_backbone("example-small", lambda options: SmallBackbone())


class AverageHead(nn.Module):
    """The mean of the last stage map is the embedding; a linear classifier without neck."""

    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.dim = in_channels
        self.classifier = nn.Linear(in_channels, num_classes)

    def forward(self, maps):
        # [N, C, H, W] -> [N, C]
        features = maps[-1].mean(dim=(2, 3))
        return ReidOutput(features, logits=(self.classifier(features),), features=(features,))


plugins.register_head(
    "example-average", lambda channels, num_classes, options: AverageHead(channels, num_classes)
)


class NormLoss(nn.Module):
    """The mean squared difference between the length of each feature and a learned target."""

    def __init__(self, target=1.0):
        super().__init__()
        self.target = nn.Parameter(torch.tensor(float(target)))

    def forward(self, output, batch):
        lengths = output.features[0].float().norm(dim=1)
        return (lengths - self.target).square().mean()


plugins.register_loss("example-norm", NormLoss)


def read_example(path: Path) -> Splits:
    """Files PID_CAMERA_NUMBER.jpg in the folders train, query and gallery."""

    def read(folder):
        for file in sorted((path / folder).glob("*.jpg")):
            pid, camid, _ = file.stem.split("_")
            yield Record((file,), int(pid), int(camid))

    train = list(read("train"))
    labels = sorted({record.pid for record in train})
    return Splits(
        train=tuple(Record(r.paths, labels.index(r.pid), r.camid) for r in train),
        query=tuple(read("query")),
        gallery=tuple(read("gallery")),
        name="example",
        train_labels=tuple(map(str, labels)),
    )


plugins.register_dataset("example", read_example, contents="train/, query/, gallery/")


class EpochTimer:
    """Logs the duration of each epoch."""

    def attach(self, trainer):
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, trainer):
        seconds = trainer.state.times[Events.EPOCH_COMPLETED.name]
        logger.info("epoch %d took %.1f s", trainer.state.epoch, seconds)


plugins.register_handler("example-timer", lambda run: EpochTimer())
