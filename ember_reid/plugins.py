"""For authors of plug-ins: functions that add backbones, heads, datasets, losses and handlers.

See docs/how-to/extend.md.
"""

from ember_reid.engine.plugins import (
    register_backbone,
    register_dataset,
    register_handler,
    register_head,
    register_loss,
)

__all__ = [
    "register_backbone",
    "register_dataset",
    "register_handler",
    "register_head",
    "register_loss",
]
