"""Backbones, heads, models and their weights."""

from modeling.backbones import BACKBONES, BackboneOptions, create_backbone
from modeling.build import build_model, check_model
from modeling.heads import GlobalHead
from modeling.model import ReidModel
from modeling.output import ReidOutput
from modeling.weights import LoadReport, load_weights

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
