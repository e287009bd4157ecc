"""Views cut from packed images equal Pillow's, whatever the sizes and however they are grouped."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

from hvc.pretrain.data.device_views import LIMIT, cut_views, plan_groups
from hvc.pretrain.data.packed import Packed, Source, merge, pack
from hvc.pretrain.data.slots import Slots
from hvc.pretrain.data.views import Crop, ViewDraw, ViewOptions, cut_view, draw_views, sample_rng

Draws = list[tuple[ViewDraw, ViewDraw]]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


def picture(width: int, height: int, kind: int) -> Image.Image:
    """Noise, gradients, or black and white."""
    rng = np.random.default_rng(width * 1000 + height)
    noise = rng.integers(0, 256, (height, width, 3))
    slope = (np.arange(height)[:, None, None] + np.arange(width)[:, None] * [1, 2, 3]) % 256
    pixels = (noise, slope, noise // 128 * 255)[kind % 3]
    return Image.fromarray(pixels.astype(np.uint8))


def draw(
    size: tuple[int, int], top: int, left: int, height: int, width: int, flip: bool = False
) -> ViewDraw:
    """A crop by hand, cut down to what the image holds."""
    top, left = min(top, size[1] - 1), min(left, size[0] - 1)
    crop = Crop(top, left, max(1, min(height, size[1] - top)), max(1, min(width, size[0] - left)))
    return ViewDraw(crop, (0, 0, 0, 0), flip)


def expected(sources: list[Source], draws: Draws, size: int) -> list[np.ndarray]:
    views = []
    for number in (0, 1):
        images = [source[number] if isinstance(source, tuple) else source for source in sources]
        views.append(
            np.stack(
                [cut_view(image, pair[number], size) for image, pair in zip(images, draws, strict=True)]
            )
        )
    return views


def check(sources: list[Source], draws: Draws, size: int, device: torch.device, limit: int = LIMIT) -> None:
    got = cut_views(pack(sources, draws).to(device), size, limit)
    for view, wanted in zip(got, expected(sources, draws, size), strict=True):
        assert view.dtype == torch.uint8
        np.testing.assert_array_equal(view.cpu().numpy(), wanted)


def random_batch(count: int, seed: int, largest: int = 500) -> tuple[list[Source], Draws]:
    rng = random.Random(seed)
    sizes = [(rng.randint(1, largest), rng.randint(1, largest)) for _ in range(count)]
    images: list[Source] = [picture(*size, number) for number, size in enumerate(sizes)]
    options = ViewOptions(flip=0.5)
    draws = [draw_views((size, size), sample_rng(seed, 0, n), options) for n, size in enumerate(sizes)]
    return images, draws


@st.composite
def batches(data: st.DrawFn) -> tuple[list[tuple[int, int]], Draws, int]:
    sizes, draws = [], []
    side = st.one_of(st.integers(1, 4), st.integers(1, 150), st.integers(1, 600))
    for _ in range(data(st.integers(1, 3))):
        size = data(side), data(side)
        sizes.append(size)
        first, second = (
            draw(size, data(side) - 1, data(side) - 1, data(side), data(side), data(st.booleans()))
            for _ in range(2)
        )
        draws.append((first, second))
    return sizes, draws, data(st.sampled_from([32, 40, 64, 96]))


@settings(deadline=None, max_examples=60)
@given(batches(), st.integers(0, 2))
@example(([(1, 1)], [(draw((1, 1), 0, 0, 1, 1), draw((1, 1), 0, 0, 1, 1, True))], 32), 0)
@example(([(3, 900)], [(draw((3, 900), 0, 0, 900, 3), draw((3, 900), 450, 1, 1, 1))], 32), 0)
@example(([(900, 3)], [(draw((900, 3), 0, 0, 3, 900), draw((900, 3), 2, 7, 1, 600))], 32), 2)
@example(([(64, 64)], [(draw((64, 64), 0, 0, 64, 64), draw((64, 64), 32, 0, 32, 64))], 64), 0)
def test_equal_to_pillow(batch: tuple[list[tuple[int, int]], Draws, int], kind: int) -> None:
    sizes, draws, size = batch
    images: list[Source] = [picture(*shape, kind + number) for number, shape in enumerate(sizes)]
    check(images, draws, size, torch.device("cpu"))


@pytest.mark.parametrize("seed", [0, 1])
def test_drawn_crops(device: torch.device, seed: int) -> None:
    images, draws = random_batch(24, seed)
    check(images, draws, 128, device)


@pytest.mark.parametrize("shape", [(5000, 3), (3, 5000), (2600, 2100), (17000, 40)])
def test_wide_filters(device: torch.device, shape: tuple[int, int]) -> None:
    full = draw(shape, 0, 0, shape[1], shape[0])
    check([picture(*shape, 0)], [(full, full._replace(flip=True))], 32, device)
    white = Image.new("RGB", shape, (255, 255, 255))
    assert cut_views(pack([white], [(full, full)]).to(device), 32)[0].min() == 255


def test_bands_and_groups_change_nothing(device: torch.device) -> None:
    images, draws = random_batch(12, 3)
    whole = cut_views(pack(images, draws).to(device), 64)
    for limit in (2**30, 4 * 2**20, 1):
        parts = cut_views(pack(images, draws).to(device), 64, limit)
        assert all(torch.equal(part, one) for part, one in zip(parts, whole, strict=True))


@pytest.mark.gpu
def test_tf32_is_exact_too() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images, draws = random_batch(24, 4)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        check(images, draws, 256, torch.device("cuda"))
    finally:
        torch.set_float32_matmul_precision(before)


def test_autocast_outside_is_left_outside(device: torch.device) -> None:
    images, draws = random_batch(4, 5)
    with torch.autocast(device.type, torch.bfloat16):
        check(images, draws, 64, device)


def test_two_frames(device: torch.device) -> None:
    pairs: list[Source] = [(picture(90, 70, 0), picture(60, 80, 1)), picture(50, 40, 2)]
    draws = [
        draw_views(((90, 70), (60, 80)), sample_rng(0, 0, 0), ViewOptions(flip=0.5)),
        draw_views(((50, 40), (50, 40)), sample_rng(0, 0, 1), ViewOptions(flip=0.5)),
    ]
    check(pairs, draws, 48, device)


def test_only_needed_pixels_are_packed() -> None:
    image = picture(100, 100, 0)
    size = image.size
    near = (draw(size, 10, 10, 40, 40), draw(size, 20, 20, 40, 40))
    apart = (draw(size, 0, 0, 5, 5), draw(size, 90, 90, 5, 5))
    assert len(pack([image], [near]).pixels) == 50 * 50
    assert len(pack([image], [apart]).pixels) == 2 * 5 * 5
    check([image, image], [near, apart], 32, torch.device("cpu"))


def test_large_images_are_packed_as_well() -> None:
    # Beyond 16 MB Pillow keeps an image in several blocks, which cannot be lent as one.
    image = picture(2500, 1900, 1)
    size = image.size
    draws = [(draw(size, 3, 5, 1800, 2400, True), draw(size, 1700, 2300, 200, 200))]
    check([image], draws, 64, torch.device("cpu"))


def test_merged_parts_are_one_batch() -> None:
    images, draws = random_batch(7, 6, 100)
    cuts = [slice(0, 3), slice(3, 4), slice(4, 4), slice(4, 7)]
    merged = merge([pack(images[cut], draws[cut]) for cut in cuts])
    whole = pack(images, draws)
    assert torch.equal(merged.pixels, whole.pixels)
    assert torch.equal(merged.places, whole.places)


def test_no_samples_no_views() -> None:
    first, second = cut_views(pack([], []), 32)
    assert first.shape == second.shape == (0, 32, 32, 3)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), max_size=60), st.integers(2**20, 2**30)
)
def test_groups_hold_every_view_once(shapes: list[tuple[int, int]], limit: int) -> None:
    shapes.sort(key=lambda shape: shape[0] * shape[1])
    groups = plan_groups([h for h, _ in shapes], [w for _, w in shapes], 64, limit)
    covered = [number for group in groups for number in range(group.first, group.last)]
    assert covered == list(range(len(shapes)))
    for group in groups:
        heights, widths = zip(*shapes[group.first : group.last], strict=True)
        assert (group.height, group.width) == (max(heights), max(widths))
        assert 1 <= group.rows <= group.height
        least = heights[0] * widths[0]
        assert group.height * group.width <= max(3 * least, 64 * 64)


@pytest.mark.parametrize(
    ("shapes", "limit"),
    [([(10000, 10000)], 256), ([(700, 900)] * 40, 64), ([(100, 20000), (20000, 100)], 64)],
)
def test_memory_stays_within_the_limit(shapes: list[tuple[int, int]], limit: int) -> None:
    code = f"""
import resource, torch
from hvc.pretrain.data.device_views import cut_views
from hvc.pretrain.data.packed import Packed
torch.set_num_threads(1)
shapes = {shapes}
pixels = torch.zeros((max(h * w for h, w in shapes), 4), dtype=torch.uint8)
places = torch.tensor([[[0, w, h, w, 0] for h, w in shapes]] * 2)
cut_views(Packed(pixels, places[:, :1] // 50), 64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cut_views(Packed(pixels, places), 64, {limit * 2**20})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    # Freed tensors go back at once: what counts is what is held, not how the heap is cut up.
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "MALLOC_MMAP_THRESHOLD_": "65536",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < limit


class Loader(IterableDataset[Packed]):
    """Batches of three samples, packed into slots in a loader process."""

    def __iter__(self) -> Iterator[Packed]:
        slots = Slots(3)
        for seed in range(12):
            images, draws = random_batch(3, seed, 80)
            yield pack(images, draws, slots)


@pytest.mark.parametrize("held", [0, 1, 12])
def test_slots_are_never_overwritten_before_release(held: int) -> None:
    kept: list[Packed] = []
    for seed, packed in enumerate(DataLoader(Loader(), batch_size=None, num_workers=1)):
        assert packed.lease is not None
        kept.append(packed)
        if len(kept) > held:
            kept.pop(0).release()
        for age, held_back in enumerate(reversed(kept)):
            images, draws = random_batch(3, seed - age, 80)
            assert torch.equal(held_back.pixels, pack(images, draws).pixels)


def test_a_released_slot_is_used_again() -> None:
    slots = Slots(2)
    images, draws = random_batch(3, 0, 80)
    first = pack(images, draws, slots)
    second = pack(images, draws, slots)
    assert first.pixels.data_ptr() != second.pixels.data_ptr()
    assert torch.equal(merge([first]).pixels, second.pixels)  # merging copies and releases
    assert pack(images, draws, slots).pixels.data_ptr() == first.pixels.data_ptr()
    held = second.pixels.clone()
    for _ in range(5):
        pack(images[::-1], draws[::-1], slots)
    assert torch.equal(second.pixels, held)


@pytest.mark.shared
def test_photos(shared: Path) -> None:
    files = sorted((shared / "data" / "photos").iterdir())[::8]
    images: list[Source] = [Image.open(file).convert("RGB") for file in files]
    sizes = [image.size for image in images if isinstance(image, Image.Image)]
    draws = [
        draw_views((size, size), sample_rng(1, 0, n), ViewOptions(flip=0.5)) for n, size in enumerate(sizes)
    ]
    check(images, draws, 256, torch.device("cpu"))
