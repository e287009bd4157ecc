"""Whatever is damaged: it is found and named, or what is read is right. Never a crash, never a hang.

A few hundred seeded cases always; 10,000 with `make soak`.
"""

import io
import json
import os
import sys
import tarfile
import tracemalloc
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from mutation import Cases, changed, damaged, quick_and_soak
from small_dataset import make_small_dataset, picture, resealed, with_counts_and_digest

from hvc.base.errors import HvcError
from hvc.base.storage import open_store
from hvc.data_prep import images
from hvc.data_prep.index import ShardIndex
from hvc.data_prep.manifest import read_manifest
from hvc.data_prep.overview import overview
from hvc.data_prep.peek import peek
from hvc.data_prep.sources import build_catalog
from hvc.data_prep.verify import verify
from hvc.data_prep.writer import Task, write_shard

MEMORY = 64 << 20  # more than this for a dataset of 70 kB means that a number was believed


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_small_dataset(tmp_path_factory.mktemp("fuzz") / "small")


@pytest.fixture
def copy(small, tmp_path):
    """A copy of the small dataset that may be damaged, and what makes it whole again."""
    folder = tmp_path / "copy"
    originals = small.files()
    folder.mkdir()

    def restore(*names):
        for name in names or originals:
            (folder / name).write_bytes(originals[name])

    restore()
    return folder, originals, restore


_CODE = (str(Path(__file__).parents[2]), sys.prefix, sys.base_prefix, "/proc/", "/dev/")
_outside: list[str] | None = None
_allowed = ""


def _watch(event, arguments):
    if _outside is not None and event == "open" and isinstance(arguments[0], str):
        path = os.path.abspath(arguments[0])  # noqa: PTH100 (pathlib would follow links)
        if not path.startswith((_allowed, *_CODE)):
            _outside.append(path)


sys.addaudithook(_watch)


@contextmanager
def only_below(folder):
    """No file elsewhere is opened meanwhile."""
    global _outside, _allowed
    _allowed, _outside = str(folder), []
    try:
        yield
        assert _outside == []
    finally:
        _outside = None


def read_all(folder):
    """The image of every sample, as `peek` reads them."""
    store = open_store(folder)
    manifest = read_manifest(store)
    found = []
    for sample in peek(store, manifest, range(manifest.samples), workers=1):
        found += [data for ext, data in sample.members.items() if ext in images.EXTENSIONS]
    return found


def outcome(function, *arguments):
    """What it returns, or None if it says what is wrong; any other exception passes."""
    try:
        return function(*arguments)
    except HvcError as error:
        assert len(str(error)) > 10
        return None


def check_files(family, names, copy, small, count):
    folder, originals, restore = copy
    cases = Cases(family, count)
    for rng in cases:
        name = rng.choice(names)
        with cases.case(name):
            data = damaged(originals[name], rng)
            (folder / name).write_bytes(data)
            problems = verify(str(folder), 1).problems
            assert [problem.file for problem in problems] == ([name] if data != originals[name] else [])
            # Now as somebody wrote it who also made all the hashes fit.
            resealed(folder)
            if verify(str(folder), 1).ok:
                assert read_all(folder) == small.images
            assert set(outcome(read_all, folder) or ()) <= {*small.images, b""}  # empty: never decoded
            outcome(overview, str(folder))
        restore(name, "manifest.json")


def shards(ending):
    return [f"shard-{number:06d}.{ending}" for number in range(3)]


@quick_and_soak(50, 2000)
def test_tars(copy, small, count):
    check_files("tar", shards("tar"), copy, small, count)


@quick_and_soak(50, 2000)
def test_indexes(copy, small, count):
    check_files("index", shards("idx"), copy, small, count)


@quick_and_soak(20, 500)
def test_lists(copy, small, count):
    names = ["rejects.jsonl", "duplicates.jsonl", "groups.jsonl"]
    check_files("list", names, copy, small, count)


@quick_and_soak(30, 1000)
def test_manifests(copy, small, count):
    folder, originals, _ = copy
    cases = Cases("manifest", count)
    for rng in cases:
        with cases.case("damaged"):
            (folder / "manifest.json").write_bytes(damaged(originals["manifest.json"], rng))
            check_manifest(folder, small)


def check_manifest(folder, small):
    report = outcome(verify, str(folder), 1)
    outcome(overview, str(folder))
    if report is not None and report.ok:  # an order of shards is as good as another one
        assert sorted(read_all(folder)) == sorted(small.images)


@quick_and_soak(50, 1000)
def test_manifests_that_lie(copy, small, count):
    """Somebody chose every value, and the digest fits."""
    folder, originals, _ = copy
    (folder.parent / "secret").write_bytes(originals["shard-000000.tar"])
    tracemalloc.start()
    cases = Cases("lie", count)
    for rng in cases:
        with cases.case("changed"), only_below(folder):
            plain = json.loads(originals["manifest.json"])
            for _ in range(rng.choice((1, 1, 2, 4))):
                plain = changed(plain, rng)
            (folder / "manifest.json").write_text(json.dumps(with_counts_and_digest(plain)))
            check_manifest(folder, small)
            assert tracemalloc.get_traced_memory()[1] < MEMORY
            tracemalloc.reset_peak()
    tracemalloc.stop()


@quick_and_soak(60, 2500)
def test_images(count):
    gates = [images.Gate(check) for check in ("none", "header", "full")]
    gates += [images.Gate(max_side=20), images.Gate(quality=80), images.Gate(max_pixels=48 * 32)]
    originals = [picture(7, image_format) for image_format in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")]
    cases = Cases("image", count)
    for rng in cases:
        data, gate = damaged(rng.choice(originals), rng), rng.choice(gates)
        with cases.case(gate):
            found = images.check(data, gate)
            if isinstance(found, images.Reject):
                assert found.reason
            elif found.width is not None:
                assert 0 < found.width * found.height <= gate.max_pixels
                assert found.ext in images.EXTENSIONS


NAMES = ("a/one.jpg", "a/two.png", "b/three.jpg", "b/" + "long" * 40 + ".jpg", "naïve.jpg", "c/d/five.jpg")


def zipped(method):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for number, name in enumerate(NAMES):
            archive.writestr(name, picture(number))
    return buffer.getvalue()


def tarred(form, names=NAMES):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for number, name in enumerate(names):
            nested = name.endswith(".tar")
            data = tarred(form, NAMES[:3]) if nested else picture(number)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@quick_and_soak(60, 2500)
def test_archives(count, tmp_path):
    originals = {
        "stored.zip": zipped(zipfile.ZIP_STORED),
        "deflated.zip": zipped(zipfile.ZIP_DEFLATED),
        "gnu.tar": tarred(tarfile.GNU_FORMAT),
        "pax.tar": tarred(tarfile.PAX_FORMAT),
        "nested.tar": tarred(tarfile.GNU_FORMAT, ("n1.tar", "n2.tar", "x.jpg")),
    }
    whole = {picture(number) for number in range(len(NAMES))}
    cases = Cases("archive", count)
    for rng in cases:
        name = rng.choice(sorted(originals))
        path = tmp_path / name
        path.write_bytes(damaged(originals[name], rng))
        with cases.case(name), only_below(tmp_path):
            catalog = outcome(build_catalog, [("folder", str(path))])
            if catalog is not None:
                check_catalog(catalog, tmp_path, whole if name.endswith(".zip") else None)


def check_catalog(catalog, folder, whole):
    """Every record becomes a sample or a reject, below the output and nowhere else."""
    for number in range(len(catalog)):
        path = catalog.path(number)
        assert not path.startswith("/")
        assert ".." not in path.split("/")
    items = tuple((number, catalog.record(number)) for number in range(len(catalog)))
    record = write_shard(Task("shard-000000", items, catalog.trees, images.Gate("header")), folder)
    samples = record.shard.samples if record.shard else 0
    assert samples + len(record.rejects) == len(catalog)
    if record.shard and whole:
        assert set(images_in(folder, record.shard)) <= whole


def images_in(folder, shard):
    index = ShardIndex.from_bytes((folder / shard.index.path).read_bytes())
    data = (folder / shard.path).read_bytes()
    offsets, lengths, _ = index.image_places(images.EXTENSIONS)
    return [data[start : start + length] for start, length in zip(offsets, lengths, strict=True)]
