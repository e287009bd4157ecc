"""Loss, gradients, buffers and six training steps equal the official code's, in float64."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from dense_loss import distances
from torch.nn import functional as F

from hvc.pretrain.model.ema import EmaTarget, momentum
from hvc.pretrain.model.loss import pair_terms
from hvc.pretrain.model.network import OnlineNetwork, StepLoss, TargetNetwork
from hvc.pretrain.model.pairs import Pairs, find_pairs


def digest(tensor: torch.Tensor) -> np.ndarray:
    flat = tensor.detach().numpy().ravel().astype(np.float64)
    stride = max(1, flat.size // 16)
    picked = np.full(16, np.nan)  # tensors of fewer than 16 values leave the rest empty
    some = flat[::stride][:16]
    picked[: some.size] = some
    return np.concatenate([[flat.sum(), np.sqrt((flat**2).sum()), np.abs(flat).max()], picked])


def build(golden: Any, tag: str) -> tuple[OnlineNetwork, TargetNetwork]:
    shapes = json.loads(golden.common("state_dict_shapes.json").read_text())
    state = golden.recipe.fill_state_dict(f"hvc-{golden.letter}/{tag}/weights", shapes)
    online = OnlineNetwork().double()
    target = TargetNetwork(online).double()
    tensors = {key: torch.as_tensor(value) for key, value in state.items()}
    own_online, own_target = online.state_dict(), target.state_dict()
    assert set(own_online) | set(own_target) == set(shapes)
    assert all(list(v.shape) == shapes[k] for k, v in (own_online | own_target).items())
    online.load_state_dict({key: tensors[key] for key in own_online})
    target.load_state_dict({key: tensors[key] for key in own_target})
    return online.train(), target.train()


def inputs(data: Any, step: int | None = None) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    def take(name: str) -> torch.Tensor:
        array = data[name] if step is None else data[name][step]
        return torch.as_tensor(array[:, 0]).double()

    return [take("im1"), take("im2")], [take("coord1"), take("coord2")]


def one_step(
    online: OnlineNetwork, ema: EmaTarget, views: list[torch.Tensor], boxes: list[torch.Tensor]
) -> tuple[StepLoss, float]:
    used = ema.update(online.ema_source())
    keys = [ema.network(view) for view in views]
    return online(views, pairs_of(boxes, keys[0]), keys), used


def pairs_of(boxes: list[torch.Tensor], embedding: torch.Tensor) -> Pairs:
    height, width = embedding.shape[-2:]
    return find_pairs((boxes[0], boxes[1]), height, width)


def as_mask(pairs: Pairs, positions: int) -> np.ndarray:
    mask = np.zeros((len(pairs.counts), positions, positions), bool)
    mask[tuple(pairs.index.numpy())] = True
    np.testing.assert_array_equal(mask.sum((1, 2)), pairs.counts)
    return mask


def test_ema_schedule(golden: Any) -> None:
    data = np.load(golden.common("ema_schedule.npz"))
    ours = [momentum(int(step), int(data["total"])) for step in data["step"]]
    np.testing.assert_allclose(ours, data["momentum"], atol=1e-12, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (6, 10)])
def test_positive_masks(golden: Any, height: int, width: int) -> None:
    data = golden.load("posmask.npz")
    size = f"{height}x{width}"
    boxes = [torch.as_tensor(data[f"coord{n}_{size}"]) for n in (1, 2)]
    count = height * width
    for radius in ("0.1", "0.5"):
        packed = np.unpackbits(data[f"pos_{size}_r{radius}"])[: 12 * count * count]
        ours = as_mask(find_pairs((boxes[0], boxes[1]), height, width, float(radius)), count)
        np.testing.assert_array_equal(ours, packed.reshape(12, count, count).astype(bool))
    least = distances(*boxes, height, width).flatten(1).min(1).values
    np.testing.assert_allclose(least, data[f"dist_min_{size}"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("file", "tag"), [("loss_square.npz", "sq"), ("loss_rect.npz", "rect")])
def test_loss_gradients_and_buffers(golden: Any, file: str, tag: str) -> None:
    data = golden.load(file)
    online, target = build(golden, tag)
    ema = EmaTarget(target, int(data["total_steps"]))
    ema.load_state({"step": int(data["current_step_before"])})
    views, boxes = inputs(data)
    loss, used = one_step(online, ema, views, boxes)
    loss.total.backward()

    assert abs(loss.total.item() - float(data["loss"])) < 1e-10
    assert abs(used - float(data["ema_momentum"])) < 1e-12
    expected_static = (data["static_12"].mean() + data["static_21"].mean()) / 2
    expected_dynamic = (data["dynamic_12"].mean() + data["dynamic_21"].mean()) / 2
    assert abs(loss.static.item() - expected_static) < 1e-10
    assert abs(loss.dynamic.item() - expected_dynamic) < 1e-10

    gradients = {name: p.grad for name, p in online.named_parameters()}
    assert set(gradients) == set(data["grad_names"])
    for name, expected in zip(data["grad_names"], data["grad_digest"], strict=True):
        np.testing.assert_allclose(digest(gradients[name]), expected, rtol=1e-7, atol=1e-9, err_msg=name)
    for key in data.files:
        if key.startswith("grad/"):
            np.testing.assert_allclose(gradients[key[5:]], data[key], rtol=1e-7, atol=1e-10)

    state = online.state_dict() | target.state_dict()
    for kind in ("target", "buffer"):
        for name, expected in zip(data[f"{kind}_names"], data[f"{kind}_digest"], strict=True):
            np.testing.assert_allclose(digest(state[name]), expected, rtol=1e-9, atol=1e-9, err_msg=name)
    tracked = [int(state[name]) for name in data["tracked_names"]]
    assert tracked == data["tracked"].tolist()


@pytest.mark.parametrize(("file", "tag"), [("loss_square.npz", "sq"), ("loss_rect.npz", "rect")])
def test_terms_of_every_sample(golden: Any, file: str, tag: str) -> None:
    data = golden.load(file)
    online, target = build(golden, tag)
    ema = EmaTarget(target, int(data["total_steps"]))
    ema.load_state({"step": int(data["current_step_before"])})
    views, boxes = inputs(data)
    ema.update(online.ema_source())
    queries, keys = [online.embed(view) for view in views], [ema.network(view) for view in views]
    there = pairs_of(boxes, keys[0])
    for name, query, key, pairs in (
        ("12", queries[0], keys[1], there),
        ("21", queries[1], keys[0], there.swapped()),
    ):
        positions = query[0, 0].numel()
        np.testing.assert_array_equal(as_mask(pairs, positions), data[f"pos_mask_{name}"])
        forward, backward = online.flow(query, key), online.flow(key, query)
        terms = pair_terms(query, key, pairs, forward, backward)
        expected = {
            f"q_{name}": query[:, :8],
            f"k_{name}": key[:, :8],
            f"flow_f_{name}": F.normalize(forward, dim=1),
            f"flow_b_{name}": F.normalize(backward, dim=1),
            f"static_{name}": terms.static,
            f"dynamic_{name}": terms.dynamic,
        }
        for part, ours in expected.items():
            np.testing.assert_allclose(ours.detach(), data[part], rtol=1e-8, atol=1e-10, err_msg=part)


@pytest.mark.slow
def test_six_training_steps(golden: Any) -> None:
    data = golden.load("train.npz")
    online, target = build(golden, "train")
    ema = EmaTarget(target, len(data["losses"]))
    optimiser = torch.optim.Adam(online.parameters(), lr=1e-3)
    for step, expected in enumerate(data["losses"]):
        loss, _ = one_step(online, ema, *inputs(data, step))
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        assert abs(loss.total.item() - expected) < 1e-6
        state = online.state_dict() | target.state_dict()
        for name, values in zip(data["names"], data["digests"][step], strict=True):
            loose = name.endswith("conv1.bias") or name.endswith("conv2.bias")
            atol = 1e-3 if loose else 1e-6  # no true gradient before a BatchNorm: Adam amplifies noise
            np.testing.assert_allclose(digest(state[name]), values, rtol=1e-5, atol=atol, err_msg=name)
