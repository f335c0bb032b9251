"""Backbones, heads, models and their weights."""

from ember_reid.modeling.backbones import BACKBONES, BackboneOptions, create_backbone
from ember_reid.modeling.build import build_model, check_model
from ember_reid.modeling.model import GlobalHead, ReidModel
from ember_reid.modeling.output import ReidOutput
from ember_reid.modeling.weights import LoadReport, load_weights

__all__ = [
    "BACKBONES",
    "BackboneOptions",
    "GlobalHead",
    "LoadReport",
    "ReidModel",
    "ReidOutput",
    "build_model",
    "check_model",
    "create_backbone",
    "load_weights",
]
