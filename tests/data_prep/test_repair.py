"""Exactly the damaged files are made again, the same to the byte, or nothing is touched."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_dataset import picture

from hvc.base.errors import HvcError, UsageError
from hvc.base.stage import Provenance, never
from hvc.base.storage import open_store
from hvc.data_prep.manifest import read_manifest
from hvc.data_prep.progress import Progress
from hvc.data_prep.repair import repair, report_of
from hvc.data_prep.shard import ShardConfig, run
from hvc.data_prep.verify import verify


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder of single images and one of video frames, with a bad image and a duplicate in each."""
    photos, videos = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("videos")
    for number in range(14):
        (photos / f"{number:02d}.jpg").write_bytes(picture(number))
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (photos / "same.jpg").write_bytes(picture(3))
    for name in ("one", "two"):
        (videos / name).mkdir()
        for frame in range(6):
            (videos / name / f"{frame:05d}.jpg").write_bytes(
                picture(100 * len(name) + frame + ord(name[0]))
            )
    (videos / "two" / "00002.jpg").write_bytes(b"")
    return photos, videos


def shard(inputs, output, **options):
    photos, videos = inputs
    entries = [
        {"source": "folder", "address": str(photos)},
        {"source": "frames", "address": str(videos)},
    ]
    config = {"min_shards": 4, "max_bad": 2, "workers": 1, "dedupe": True, "seed": 5, **options}
    run(ShardConfig.parse({"inputs": entries, "output": str(output), **config}), never, Provenance())


@pytest.fixture(scope="module")
def made(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "out"
    shard(inputs, out)
    names = {path.name for path in out.iterdir()}
    assert {"rejects.jsonl", "duplicates.jsonl", "groups.jsonl", "shard-000003.idx"} <= names
    return out


@pytest.fixture
def dataset(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "out"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def addresses(inputs):
    return [str(path) for path in inputs]


def fix(dataset, given):
    return repair(str(dataset), given, verify(str(dataset)), workers=1)


def flip(path, place=0.5):
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)


def test_nothing_to_do(dataset, inputs):
    report = fix(dataset, addresses(inputs))
    assert (report.remade, report.removed, report.problems) == ([], [], [])


@pytest.mark.parametrize(
    "name",
    [
        "shard-000000.tar",
        "shard-000003.tar",
        "shard-000001.idx",
        "rejects.jsonl",
        "duplicates.jsonl",
        "groups.jsonl",
    ],
)
def test_one_file(made, dataset, inputs, name):
    before = {path: path.stat().st_mtime_ns for path in dataset.iterdir() if path.name != name}
    flip(dataset / name)
    assert fix(dataset, addresses(inputs)).remade == [name]
    assert contents(dataset) == contents(made)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_everything_but_the_manifest(made, dataset, inputs):
    for path in dataset.iterdir():
        if path.name != "manifest.json":
            path.unlink()
    (dataset / "shard-000055.tar").write_bytes(b"surplus")
    (dataset / "mine.txt").write_text("stays")
    report = fix(dataset, [f"folder:{inputs[0]}", f"frames:{inputs[1]}"])
    assert report.removed == ["shard-000055.tar"]
    assert report.problems == []
    assert contents(dataset) == {**contents(made), "mine.txt": b"stays"}


def test_an_input_that_is_another_one_now(dataset, inputs, tmp_path):
    photos = Path(shutil.copytree(inputs[0], tmp_path / "photos"))
    (photos / "new.jpg").write_bytes(picture(77))
    (dataset / "shard-000000.tar").unlink()
    with pytest.raises(HvcError, match=r"not what .* was made from: files were added, removed"):
        fix(dataset, [str(photos), str(inputs[1])])
    assert not (dataset / "shard-000000.tar").exists()


def test_a_file_of_the_same_size_with_another_content(dataset, inputs, tmp_path):
    """The listing cannot tell; the hash of what comes out does, before anything is replaced."""
    photos = Path(shutil.copytree(inputs[0], tmp_path / "photos"))
    flip(photos / "05.jpg", 0.9)
    for number in range(4):
        flip(dataset / f"shard-{number:06d}.tar")
    damaged = contents(dataset)
    with pytest.raises(HvcError, match=r"shard-\d+.tar cannot be remade as it was: files of the input"):
        fix(dataset, [str(photos), str(inputs[1])])
    changed = [name for name, data in contents(dataset).items() if data != damaged[name]]
    good = {problem.file for problem in verify(str(dataset)).problems}
    assert not good & set(changed)  # whatever was replaced is as it was made
    assert good


def test_other_inputs_than_it_was_made_from(dataset, inputs):
    flip(dataset / "shard-000000.tar")
    with pytest.raises(UsageError, match=r"from 2 inputs \(folder, frames\), and 1 are given"):
        fix(dataset, [str(inputs[0])])


def test_while_somebody_else_writes(dataset, inputs):
    flip(dataset / "shard-000000.tar")
    store = open_store(dataset)
    with (
        Progress(store, read_manifest(store).digest).alone(),
        pytest.raises(HvcError, match="another run writes here"),
    ):
        fix(dataset, addresses(inputs))


def test_reencoded_images(inputs, tmp_path):
    shard(inputs, tmp_path / "out", quality=70, max_side=40)
    whole = contents(tmp_path / "out")
    flip(tmp_path / "out" / "shard-000002.tar")
    assert fix(tmp_path / "out", addresses(inputs)).problems == []
    assert contents(tmp_path / "out") == whole


PROGRAM = """
import sys
from hvc.data_prep.repair import report_of
if __name__ == "__main__":
    report_of(sys.argv[1], sys.argv[2:], 1)
"""


@pytest.mark.slow
def test_killed_and_done_again(made, dataset, inputs, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(dataset), *addresses(inputs)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for delay in (0.3, 0.7, 1.0, 1.3):
        for name in ("shard-000000.tar", "shard-000001.tar", "shard-000002.idx", "groups.jsonl"):
            (dataset / name).unlink(missing_ok=True)
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    values = report_of(str(dataset), addresses(inputs), 1)
    assert values["ok"]
    assert contents(dataset) == contents(made)


@pytest.mark.services
def test_on_s3(s3_env, made, inputs):
    address = s3_env.bucket("repair") + "/some/prefix"
    store = open_store(address)
    for name, data in contents(made).items():
        store.write(name, data)
    store.write("shard-000000.tar", b"short")
    store.delete("shard-000001.idx")
    store.delete("groups.jsonl")
    store.write("shard-000009.tar", b"surplus")
    values = report_of(address, addresses(inputs), 2)
    assert values["ok"]
    assert values["remade"] == ["groups.jsonl", "shard-000000.tar", "shard-000001.idx"]
    assert values["removed"] == ["shard-000009.tar"]
    assert {name: store.read(name) for name in store.names()} == contents(made)
