"""Scores of label maps: what counts, what is averaged, and what cannot be scored."""

import json

import numpy as np
import pytest
from PIL import Image
from scored_files import objects_in, save, scene

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.metrics.davis import MaskScorer, statistics
from hvc.evaluation.metrics.vost import VostScorer


def scores_of(scorer, *scenes):
    records = {sequence.name: scorer.score(sequence, results) for sequence, results in scenes}
    return scorer.summarise(json.loads(json.dumps(records)))


def test_the_first_and_the_last_frame_do_not_count(tmp_path):
    labels = objects_in()
    labels[0] = labels[-1] = 0
    sequence, results = scene(tmp_path, objects_in(), labels)
    (results / "clip" / "00000.png").unlink()
    (results / "clip" / "00005.png").unlink()
    record = MaskScorer().score(sequence, results)
    assert record["scored"] == ["00001", "00002", "00003", "00004"]
    assert record["objects"] == [1, 2]
    assert record["j"] == record["f"] == [[1.0] * 4] * 2


def test_void_is_background_and_no_object(tmp_path):
    truth = objects_in()
    truth[:, 15:, :] = 255
    summary = scores_of(MaskScorer(), scene(tmp_path, truth, objects_in()))
    assert list(summary.per_object) == ["clip/1", "clip/2"]
    assert summary.scores["jf_mean"] == 100


def test_void_alone_in_a_grey_frame_is_no_object(tmp_path):
    truth = objects_in(objects=1)
    truth[2] = np.where(truth[2] == 1, 0, truth[2])
    truth[2, 15:] = 255  # the object has gone, what remains is 0 and 255 only
    labels = objects_in(objects=1)
    labels[2] = 0
    sequence, results = scene(tmp_path, truth, labels)
    for path, mask in zip(sequence.annotations, truth, strict=True):
        Image.fromarray(mask).save(path)
    assert scores_of(MaskScorer(), (sequence, results)).scores["jf_mean"] == 100


def test_an_id_that_the_first_annotation_skips_is_no_object(tmp_path):
    truth = 3 * objects_in(objects=1)
    truth[3, 15:] = 2  # appears later: background, as in the official tool
    summary = scores_of(MaskScorer(), scene(tmp_path, truth, 3 * objects_in(objects=1)))
    assert list(summary.per_object) == ["clip/3"]
    assert summary.scores["jf_mean"] == 100


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_single_object_may_be_0_and_1_or_0_and_255(tmp_path, mode, value):
    truth = objects_in(objects=1)
    sequence, results = scene(tmp_path, truth, truth, single_object=True)
    for path in (results / "clip").glob("*.png"):
        image = Image.fromarray(value * truth[0])
        if mode == "P":
            image.putpalette([0, 0, 0] + 255 * [255, 255, 255])
        image.save(path)
    assert scores_of(MaskScorer(), (sequence, results)).scores["jf_mean"] == 100


def test_merged_objects_are_one_whatever_their_ids(tmp_path):
    summary = scores_of(MaskScorer(merged=True), scene(tmp_path, objects_in(), 7 * objects_in()))
    assert list(summary.per_object) == ["clip/1"]
    assert summary.scores["jf_mean"] == 100


def test_a_data_set_averages_objects_not_sequences(tmp_path):
    perfect = scene(tmp_path, objects_in(objects=3), objects_in(objects=3), "three")
    poor = scene(tmp_path, objects_in(objects=1), np.zeros_like(objects_in()), "one")
    summary = scores_of(MaskScorer(), perfect, poor)
    assert len(summary.per_object) == 4
    assert summary.scores["jf_mean"] == summary.scores["j_mean"] == summary.scores["f_mean"] == 75
    assert summary.per_sequence["three"]["jf_mean"] == 100
    assert summary.per_sequence["one"] == dict.fromkeys(summary.scores, 0)
    assert summary.curves["one"] == {"j": [0.0] * 4, "f": [0.0] * 4}
    assert set(summary.curves["three"]) == {"j", "f", "j/1", "j/2", "j/3", "f/1", "f/2", "f/3"}
    with pytest.raises(HvcError, match="no sequence was scored"):
        MaskScorer().summarise({})


def problem(tmp_path, labels, scorer=None, truth=None):
    truth = objects_in() if truth is None else truth
    sequence, results = scene(tmp_path, truth, labels)
    with pytest.raises(HvcError) as caught:
        (scorer or MaskScorer()).score(sequence, results)
    return str(caught.value)


def test_what_cannot_be_scored_is_named_with_the_mend(tmp_path):
    def folder(name):
        return tmp_path / name

    message = problem(folder("short"), objects_in(2), truth=objects_in(2))
    assert "2 annotated frames" in message and "3 are needed" in message
    message = problem(folder("none"), objects_in(), truth=objects_in(objects=0))
    assert "truth/clip/00000.png shows no object" in message
    message = problem(folder("size"), np.repeat(objects_in(), 2, axis=2))
    assert "results/clip/00001.png is 60 x 20 pixels, but" in message
    assert "truth/clip/00001.png is 30 x 20" in message
    message = problem(folder("ids"), objects_in(objects=3))
    assert "results/clip/00001.png shows id 3, but the objects" in message and "are 1, 2" in message
    message = problem(folder("white"), 255 * (objects_in() > 0).astype(np.uint8))
    assert "shows id 255" in message and "black-and-white" in message
    message = problem(folder("missing"), objects_in(2))
    assert "3 of 4 files of results are missing" in message
    assert "results/clip/00002.png" in message and "00004.png" in message


def test_a_damaged_result_is_named(tmp_path):
    sequence, results = scene(tmp_path, objects_in(), objects_in())
    (results / "clip" / "00003.png").write_bytes(b"\x89PNG")
    with pytest.raises(HvcError, match=r"results/clip/00003.png: not a readable picture"):
        MaskScorer().score(sequence, results)


def test_every_frame_needs_its_annotation(tmp_path):
    sequence, results = scene(tmp_path, objects_in(), objects_in())
    partly = Sequence("clip", sequence.frames, {}, [*sequence.annotations[:-1], None], single_object=False)
    with pytest.raises(HvcError, match=r"00005.png has no annotation"):
        MaskScorer().score(partly, results)


def test_vost_scores_the_annotated_frames_and_cuts_other_ids(tmp_path):
    truth, labels = objects_in(12, 1), objects_in(12, 2)
    labels[8:] = 0
    sequence, results = scene(tmp_path, truth, labels)
    every_other = [path if number % 2 == 0 else None for number, path in enumerate(sequence.annotations)]
    sparse = Sequence("clip", sequence.frames, {}, every_other, single_object=False)
    scorer = VostScorer()
    assert scorer.frames(sparse) == [2, 4, 6, 8]
    scores = scores_of(scorer, (sparse, results)).scores
    assert scores["j_mean"] == 75
    assert scores["j_last"] == 0
    assert "f_mean" not in scores


def test_statistics():
    values = np.array([1.0, 1.0, 0.5, 0.6, 0.2, 0.0])
    found = statistics(values)
    assert found.mean == pytest.approx(0.55)
    assert found.recall == pytest.approx(3 / 6)
    assert found.decay == pytest.approx(1.0 - 0.1)  # frames 0 and 1 against 4 and 5


def test_decay_of_long_videos_is_right_unless_the_official_numbers_are_wanted():
    values = np.linspace(1, 0, 300)
    assert statistics(values).decay == pytest.approx(values[:76].mean() - values[224:].mean())
    wrapped = statistics(values, official_decay=True).decay
    assert wrapped != pytest.approx(statistics(values).decay, abs=0.01)
    assert statistics(values[:256], official_decay=True) == statistics(values[:256])


def test_the_official_decay_can_be_asked_for(tmp_path):
    truth = np.zeros((302, 4, 6), np.uint8)
    truth[:, 1:3, 1:4] = 1
    labels = truth.copy()
    labels[150:] = 0
    pair = scene(tmp_path, truth, labels)
    right, official = (scores_of(MaskScorer(official_decay=switch), pair) for switch in (False, True))
    assert right.scores["j_decay"] == 100
    assert official.scores["j_decay"] != right.scores["j_decay"]


def test_saved_results_are_read_anew_every_time(tmp_path):
    sequence, results = scene(tmp_path, objects_in(), objects_in())
    first = scores_of(MaskScorer(), (sequence, results)).scores["jf_mean"]
    save(results, "clip", np.zeros_like(objects_in()))
    assert (first, scores_of(MaskScorer(), (sequence, results)).scores["jf_mean"]) == (100, 0)
