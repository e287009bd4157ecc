"""J, F and their statistics against the official DAVIS tools'."""

import json

import numpy as np
import pytest
from dense_measures import boundary_map, measure_video

from hvc.evaluation.layouts.masks import VOID, write_mask
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.metrics.davis import MaskScorer, statistics
from hvc.evaluation.metrics.davis_measures import boundary_radius, measure_frame
from hvc.evaluation.score import score

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def data(golden):
    return dict(golden.load("davis_metrics.npz"))


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


def rows(values):
    """[objects, 3]: mean, recall, decay."""
    found = [statistics(row) for row in values]
    return np.array([(s.mean, s.recall, s.decay) for s in found])


def write(data, folder, merged=False):
    """The golden label maps as files: the sequences, and the folder of results."""
    sequences = []
    for name in map(str, data["seqs"]):
        for kind in ("gt", "pred"):
            for number, labels in enumerate(data[f"{name}_{kind}"]):
                write_mask(folder / kind / name / f"{number:05d}.png", labels)
        files = sorted((folder / "gt" / name).glob("*.png"))
        sequences.append(Sequence(name, files, {0: files[0]}, list(files), single_object=merged))
    return sequences, folder / "pred"


def test_every_frame_of_every_object(data):
    for name in data["seqs"]:
        truth, labels = data[f"{name}_gt"], data[f"{name}_pred"]
        region, contour = measure_video(truth, labels, range(1, len(data[f"{name}_J"]) + 1))
        close(region, data[f"{name}_J"])
        close(contour, data[f"{name}_F"])


def test_files_to_global_row(data, tmp_path):
    """The whole way: masks with palettes, void pixels, absent objects, one that is never predicted."""
    sequences, results = write(data, tmp_path)
    scorer = MaskScorer()
    records = {sequence.name: scorer.score(sequence, results) for sequence in sequences}
    summary = scorer.summarise(json.loads(json.dumps(records)))
    names = ("jf_mean", "j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay")
    close([summary.scores[name] / 100 for name in names], data["global"])
    assert list(summary.per_object) == [name.replace("_", "/") for name in data["J_names"].tolist()]
    for measure in "jf":
        for key, statistic in (("mean", "M"), ("recall", "R"), ("decay", "D")):
            ours = [values[f"{measure}_{key}"] / 100 for values in summary.per_object.values()]
            close(ours, data[f"{measure.upper()}_{statistic}"])
    for name, curves in summary.curves.items():
        close(np.array(curves["j"]) / 100, data[f"{name}_J"].mean(axis=0))


def test_objects_merged_into_one(data, tmp_path):
    sequences, results = write(data, tmp_path)
    scorer = MaskScorer(merged=True)
    records = [scorer.score(sequence, results) for sequence in sequences]
    close(np.concatenate([rows(np.array(record["j"])) for record in records]), data["single_J_MRD"])
    close(np.concatenate([rows(np.array(record["f"])) for record in records]), data["single_F_MRD"])


def test_boundary_maps_and_radii(data):
    np.testing.assert_array_equal(boundary_map(data["alpha_gt"][2] == 1), data["bmap_alpha1_f2"])
    np.testing.assert_array_equal(boundary_map(data["delta_gt"][2] == 1), data["bmap_delta_f2"])
    assert [boundary_radius(*size) for size in data["bound_pix_hw"].tolist()] == data["bound_pix"].tolist()


def test_void_pixels_that_are_left_out_are_background_in_both(data):
    truth, labels = data["gamma_gt"], data["gamma_pred"]
    frame = int(np.argmax((truth == VOID).any((1, 2))))
    known = truth[frame] != VOID
    assert not known.all()
    values, _ = measure_frame(truth[frame] * known, labels[frame] * known, np.array([1, 2, 3], np.uint8))
    close(values.T, [data["void_J"], data["void_F"]])


def test_published_per_frame_scores_of_another_method(shared):
    """The authors' own J and F for their DAVIS-2016 masks: every frame, and what comes of them."""
    folder = shared / "data"
    published = json.loads((folder / "stm_results" / "per_frame_scores.json").read_text())["davis16"]
    report = score("davis2016", folder / "stm_results" / "davis16", folder / "davis2016")
    assert set(report.summary.curves) == set(published) and len(published) == 4
    for name, expected in published.items():
        for measure in "jf":
            values = expected[measure.upper()]
            close(np.array(report.summary.curves[name][measure]) / 100, values["raw"][0][1:-1])
            ours = report.summary.per_object[f"{name}/1"]
            for statistic in ("mean", "recall", "decay"):
                close(ours[f"{measure}_{statistic}"] / 100, values[statistic][0])
