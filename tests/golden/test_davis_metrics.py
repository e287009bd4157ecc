"""J, F and their statistics against the official DAVIS tools'."""

import json

import numpy as np
import pytest

from hvc.evaluation.davis_measures import boundary_map, boundary_radius, contour_accuracy, region_similarity
from hvc.evaluation.davis_metrics import score_dataset, score_sequence, statistics
from hvc.evaluation.masks import VOID, read_mask
from hvc.evaluation.sequences import to_single_object

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def data(golden):
    return dict(golden.load("davis_metrics.npz"))


@pytest.fixture(scope="module")
def scores(data):
    return [score_sequence(data[f"{name}_gt"], data[f"{name}_pred"]) for name in data["seqs"]]


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


def rows(values):
    """[objects, 3]: mean, recall, decay."""
    found = [statistics(row) for row in values]
    return np.array([(s.mean, s.recall, s.decay) for s in found])


def test_every_frame_of_every_object(data, scores):
    for name, score in zip(data["seqs"], scores, strict=True):
        close(score.region, data[f"{name}_J"])
        close(score.contour, data[f"{name}_F"])


def test_statistics_of_every_object(data, scores):
    region = np.concatenate([rows(score.region) for score in scores])
    contour = np.concatenate([rows(score.contour) for score in scores])
    for column, statistic in enumerate("MRD"):
        close(region[:, column], data[f"J_{statistic}"])
        close(contour[:, column], data[f"F_{statistic}"])


def test_the_global_row(data, scores):
    total = score_dataset(scores)
    j, f = total.region, total.contour
    close([total.mean, j.mean, j.recall, j.decay, f.mean, f.recall, f.decay], data["global"])
    assert total.objects == len(data["J_names"])


def test_objects_merged_into_one(data):
    merged = [
        score_sequence(to_single_object(data[f"{name}_gt"]), to_single_object(data[f"{name}_pred"]))
        for name in data["seqs"]
    ]
    close(np.concatenate([rows(score.region) for score in merged]), data["single_J_MRD"])
    close(np.concatenate([rows(score.contour) for score in merged]), data["single_F_MRD"])


def test_boundary_maps_and_radii(data):
    np.testing.assert_array_equal(boundary_map(data["alpha_gt"][2] == 1), data["bmap_alpha1_f2"])
    np.testing.assert_array_equal(boundary_map(data["delta_gt"][2] == 1), data["bmap_delta_f2"])
    assert [boundary_radius(*size) for size in data["bound_pix_hw"].tolist()] == data["bound_pix"].tolist()


def test_void_pixels_are_left_out(data):
    truth, labels = data["gamma_gt"], data["gamma_pred"]
    frame = int(np.argmax((truth == VOID).any((1, 2))))
    void = truth[frame] == VOID
    assert void.any()
    for index, (region, contour) in enumerate(zip(data["void_J"], data["void_F"], strict=True)):
        pair = truth[frame] == index + 1, labels[frame] == index + 1
        close(region_similarity(*pair, void), region)
        close(contour_accuracy(*pair, void), contour)


def test_published_per_frame_scores_of_another_method(shared):
    """The authors' own J and F for their DAVIS-2016 masks, equal to the last bits."""
    published = json.loads((shared / "data" / "stm_results" / "per_frame_scores.json").read_text())[
        "davis16"
    ]
    assert len(published) == 4
    for name, expected in published.items():
        truth, predicted = (
            np.stack([read_mask(path) for path in sorted((shared / "data" / folder / name).glob("*.png"))])
            for folder in ("davis2016/Annotations/480p", "stm_results/davis16")
        )
        score = score_sequence(to_single_object(truth), to_single_object(predicted))
        close(score.region, np.array(expected["J"]["raw"])[:, 1:-1])
        close(score.contour, np.array(expected["F"]["raw"])[:, 1:-1])
