"""Names of trunks and their layers; apart from `trunk.py`, so that reading a recipe needs no torch."""

import difflib
import re
from typing import Annotated, Literal

from pydantic import AfterValidator

ResNet = Literal["resnet18", "resnet34", "resnet50"]
RESNETS: tuple[ResNet, ...] = ("resnet18", "resnet34", "resnet50")
Layer = Literal["layer1", "layer2", "layer3", "layer4"]
LAYERS: tuple[Layer, ...] = ("layer1", "layer2", "layer3", "layer4")
STRIDE_1_LAYERS: tuple[Layer, ...] = ("layer3", "layer4")
"""Layers that HVC takes the strides out of, in training and tracking alike."""
Padding = Literal["zeros", "reflect"]

_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_import_path(architecture: str) -> bool:
    """Whether it is `package.module:factory`, a trunk of the user's own."""
    return _IMPORT_PATH.fullmatch(architecture) is not None


def _known(architecture: str) -> str:
    if architecture in RESNETS or is_import_path(architecture):
        return architecture
    near = difflib.get_close_matches(architecture, RESNETS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"{architecture!r} is none of {', '.join(RESNETS)}, nor `package.module:factory` of a trunk of "
        f"your own{hint}"
    )


Architecture = Annotated[str, AfterValidator(_known)]
"""`resnet18`, `resnet34`, `resnet50`, or `package.module:factory`; what the factory owes: `TrunkModule`."""
