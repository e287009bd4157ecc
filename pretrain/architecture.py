"""Names of trunks and their layers; apart from `trunk.py`, so that reading a recipe needs no torch."""

from typing import Literal

Architecture = Literal["resnet18", "resnet34", "resnet50"]
Layer = Literal["layer1", "layer2", "layer3", "layer4"]
LAYERS: tuple[Layer, ...] = ("layer1", "layer2", "layer3", "layer4")
