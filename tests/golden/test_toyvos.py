"""From JPEG frames to labels, with one and with two encoders, against the official program's output."""

import json

import numpy as np
import pytest
import torch

from hvc.evaluation.layouts.masks import read_mask
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.propagation.features import IMAGENET_MEAN, IMAGENET_STD, Encoder, MergedExtractor
from hvc.evaluation.propagation.protocol import Protocol
from hvc.evaluation.propagation.video import propagate
from hvc.pretrain.model.trunk import Trunk

pytestmark = pytest.mark.shared


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors gain nothing from threads, and threads that wait for busy cores cost seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def encoder(golden, depth):
    shapes = json.loads(golden.common(f"r{depth}_trunk_shapes.json").read_text())
    state = golden.recipe.fill_state_dict(f"toy-{golden.letter}/random{depth}", shapes)
    trunk = Trunk(f"resnet{depth}", last="layer3")
    trunk.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    return Encoder(trunk, IMAGENET_MEAN, IMAGENET_STD)


def sequences(data):
    """The official file list: flag, frame, mask (which need not be there)."""
    videos = {}
    for line in (data / "toy.txt").read_text().splitlines():
        _, frame, mask = line.split()
        frames, masks = videos.setdefault((data / frame).parent.name, ([], {}))
        if (data / mask).exists():
            masks[len(frames)] = data / mask
        frames.append(data / frame)
    return [
        Sequence(name, frames, masks, [None] * len(frames), False)
        for name, (frames, masks) in videos.items()
    ]


@pytest.mark.parametrize("kind", ["single", "merged"])
def test_end_to_end(golden, kind):
    folder = golden.load("toyvos")
    first = encoder(golden, 18)
    source = (
        MergedExtractor(first, encoder(golden, 50), Protocol().merge_weight) if kind == "merged" else first
    )
    videos = sequences(folder / "data")
    assert [(len(v.frames), sorted(v.masks)) for v in videos] == [(9, [0]), (8, [0, 4])]
    for video in videos:
        labels = np.stack([frame.labels for frame in propagate(video, source, Protocol())])
        expected = np.load(folder / f"expected_{kind}" / f"{video.name}_all.npz")["pred"]
        assert labels.shape == expected.shape
        assert len(np.unique(labels)) > 1
        assert (labels == expected).mean() >= 0.999
        for path in (folder / f"expected_{kind}" / "hvc_vos" / video.name).glob("*.png"):
            assert (read_mask(path) == labels[int(path.stem)]).mean() >= 0.999
