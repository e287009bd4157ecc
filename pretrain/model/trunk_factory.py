"""From the name of an architecture to its trunk, initialised; a trunk of the user's own is checked.

An import path runs the code that it names. It comes from a recipe, which is the user's own; that of a
weights file is followed only where the user says so (`evaluation/propagation/features.py`).
"""

import importlib
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from hvc.base.errors import UsageError
from hvc.pretrain.model.architecture import Architecture, is_import_path
from hvc.pretrain.model.trunk import Trunk, TrunkModule, initialise, tracking_features

_PROBES = ((64, 72), (57, 33))  # the second as odd as a video frame may be


def build_trunk(architecture: Architecture) -> TrunkModule:
    """A new trunk: a ResNet initialised as officially, or what the user's factory makes, as it makes it.

    UsageError where `package.module:factory` cannot be imported, fails, or returns no `TrunkModule`.
    """
    if not is_import_path(architecture):
        trunk = Trunk(architecture)
        initialise(trunk)
        return trunk
    module = _made(architecture)
    _check_width(architecture, module)
    _check_maps(architecture, module)
    return cast(TrunkModule, module)  # by its deeds


def find_factory(architecture: Architecture) -> Callable[[], object] | None:
    """The user's factory of trunks, not called yet; None for a ResNet. UsageError if it is not there."""
    if not is_import_path(architecture):
        return None
    place, _, name = architecture.partition(":")
    try:
        return cast(Callable[[], object], getattr(importlib.import_module(place), name))
    except ImportError as error:
        raise UsageError(
            f"architecture {architecture}: cannot import it ({error}); install the package, or put its "
            "folder on PYTHONPATH (of cluster jobs, too)"
        ) from None
    except AttributeError:
        raise UsageError(f"architecture {architecture}: module {place} has no {name!r}") from None


def _made(architecture: str) -> nn.Module:
    factory, name = find_factory(architecture), architecture.rpartition(":")[2]
    assert factory is not None, "asked for import paths only"
    try:
        made = factory()
    except Exception as error:
        raise UsageError(
            f"architecture {architecture}: {name}() failed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, nn.Module):
        raise UsageError(
            f"architecture {architecture}: {name}() gave a {type(made).__name__}, no nn.Module"
        )
    return made


def _check_width(architecture: str, module: nn.Module) -> None:
    width = getattr(module, "width", None)
    if not isinstance(width, int) or width < 1:
        raise UsageError(
            f"architecture {architecture}: the module needs an attribute `width`, the channels of its "
            f"output as a whole number (found {width!r})"
        )


@torch.no_grad()
def _check_maps(architecture: str, module: nn.Module) -> None:
    """Black images through the module in eval mode, which leaves BatchNorm's buffers alone."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        for height, width in _PROBES:
            images = _black(module, height, width)
            _check_map(architecture, "its output", module(images), images, int(module.width))  # type: ignore[arg-type]
            _check_map(architecture, "tracking_features", tracking_features(module, images), images, None)
    except RuntimeError as error:
        raise UsageError(
            f"architecture {architecture}: cannot take an image of {height} x {width} pixels: {error}"
        ) from error
    finally:
        for part, mode in modes.items():
            part.training = mode


def _black(module: nn.Module, height: int, width: int) -> Tensor:
    like = next(module.parameters(), torch.zeros(()))
    return torch.zeros(1, 3, height, width, dtype=like.dtype, device=like.device)


def _check_map(architecture: str, what: str, maps: object, images: Tensor, width: int | None) -> None:
    rows, columns = (-(-side // 8) for side in images.shape[-2:])
    shape = list(maps.shape) if isinstance(maps, Tensor) else [type(maps).__name__]
    channels = width or (shape[1] if len(shape) == 4 else "C")
    expected = [1, channels, rows, columns]
    if shape != expected:
        raise UsageError(
            f"architecture {architecture}: for images {list(images.shape)} {what} is {shape}, expected "
            f"{expected}: stride 8, ceil(H/8) x ceil(W/8)"
        )
