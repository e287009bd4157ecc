"""A finished sequence is known by its files' contents, not by where or when they were written."""

import shutil

import numpy as np
import pytest
from PIL import Image

from hvc.base.stage import never
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.labelling import finished
from hvc.evaluation.labelling.finished import dataset_digest, read_finished, sequence_digest, write_finished
from hvc.evaluation.labelling.one_sequence import Task, evaluate_sequence
from hvc.evaluation.labelling.results import Results, count_labels
from hvc.evaluation.layouts.folder import read_folder
from hvc.evaluation.layouts.masks import write_mask
from hvc.evaluation.propagation.features import Encoder


def digest(folder):
    (sequence,) = read_folder(folder)
    return sequence_digest(sequence)


def test_a_copy_is_the_same_data(tmp_path, video):
    clip = video.write(tmp_path / "here" / "clip")
    copy = tmp_path / "there" / "clip"
    shutil.copytree(clip, copy, copy_function=shutil.copyfile)
    assert digest(copy) == digest(clip)


def redraw(clip, index, video):
    write_mask(clip / "masks" / f"{index:05d}.png", video.labels[(index + 1) % 6])


@pytest.mark.parametrize(
    "change",
    [
        lambda clip, video: redraw(clip, 0, video),
        lambda clip, video: redraw(clip, 5, video),
        lambda clip, video: (clip / "masks" / "00004.png").unlink(),
        lambda clip, video: Image.fromarray(video.frames[0]).save(clip / "frames" / "00003.jpg"),
        lambda clip, video: (clip / "frames" / "00005.jpg").rename(clip / "frames" / "00005.jpeg"),
        lambda clip, video: clip.rename(clip.with_name("moved")),
    ],
    ids=["mask", "annotation", "fewer annotations", "frame", "name of a frame", "name"],
)
def test_any_change_of_the_files_is_seen(tmp_path, video, change):
    clip = video.write(tmp_path / "clips" / "clip")
    before = digest(tmp_path / "clips")
    change(clip, video)
    assert digest(tmp_path / "clips") != before


def test_a_record_lapses_with_its_files_and_its_version(tmp_path, monkeypatch):
    record = tmp_path / "sequences" / "clip.json"
    assert read_finished(record, "a") is None
    stored = write_finished(record, "a", {"name": "clip"})
    assert read_finished(record, "a") == stored
    assert read_finished(record, "b") is None
    monkeypatch.setattr(finished, "EVALUATOR_VERSION", finished.EVALUATOR_VERSION + 1)
    assert read_finished(record, "a") is None
    record.write_text('{"name": "clip"}')
    assert read_finished(record, "a") is None


def test_the_data_sets_digest_knows_no_order():
    assert dataset_digest({"a": "1", "b": "2"}) == dataset_digest({"b": "2", "a": "1"})
    assert dataset_digest({"a": "1", "b": "2"}) != dataset_digest({"a": "2", "b": "1"})


def test_labels_of_frames_that_are_gone_go_too(tmp_path, video):
    clip = video.write(tmp_path / "clip", masks=1)
    encoder, results = Encoder.untrained(0), Results(tmp_path / "results")
    values = {"checkpoint": "baseline:untrained", "benchmark": "folder", "data": str(clip)}
    config = EvaluateConfig.parse(values, ["protocol.input_size=48"])

    def label():
        (sequence,) = read_folder(clip)
        task = Task(sequence, sequence_digest(sequence))
        evaluate_sequence(task, encoder, config, results, never, lambda: None)
        return sorted(path.stem for path in (results.labels / "clip").iterdir())

    assert "00005" in label()
    (clip / "frames" / "00005.jpg").rename(clip / "frames" / "00007.jpg")
    assert label() == ["00000", "00001", "00002", "00003", "00004", "00007"]


def test_labels_without_a_record_are_not_taken_for_those_of_an_older_one(tmp_path, video):
    clip = video.write(tmp_path / "clip")
    encoder, results = Encoder.untrained(0), Results(tmp_path / "results")
    values = {"checkpoint": "baseline:untrained", "benchmark": "folder", "data": str(clip)}
    config = EvaluateConfig.parse(values, ["protocol.input_size=48"])

    def task():
        (sequence,) = read_folder(clip)
        return Task(sequence, sequence_digest(sequence))

    before = task()
    evaluate_sequence(before, encoder, config, results, never, lambda: None)
    first = clip / "masks" / "00000.png"
    given = first.read_bytes()
    write_mask(first, np.roll(video.labels[0], 20, axis=0))
    shown: list[int] = []
    # stopped after the last frame: all labels are there, but no record of them
    stopped = evaluate_sequence(
        task(), encoder, config, results, lambda: len(shown) == 6, lambda: shown.append(1)
    )
    assert stopped is None
    assert count_labels(results.labels, "clip") == 6
    first.write_bytes(given)
    assert task() == before
    assert results.finished("clip", before.digest) is None
