"""The protocol's numbers, and those of other methods."""

import pytest

from hvc.base.errors import UsageError
from hvc.evaluation.propagation.presets import PRESETS
from hvc.evaluation.propagation.protocol import Protocol

COLUMNS = ("context", "radius", "top_k", "temperature", "input_size", "top_k_per_frame", "reference_window")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("hvc", (50, 12, 15, 0.1, None, False, False)),
        ("sfc", (20, 15, 15, 0.1, None, False, False)),
        ("crw", (20, 12, 10, 0.05, None, False, False)),
        ("vfs", (20, 12, 10, 0.07, None, False, True)),
        ("crw-vip", (4, 12, 10, 0.05, (560, 560), False, False)),
        ("crw-jhmdb", (7, 12, 10, 0.05, (320, 320), False, False)),
        ("uvc-vip", (1, None, 5, 1, (560, 560), True, False)),
        ("uvc-jhmdb", (7, None, 20, 1, (320, 320), True, False)),
        ("t-core", (20, 20, 7, 0.7, (480, 880), False, False)),
        ("t-core-vip", (20, 20, 10, 0.7, (880, 880), False, False)),
        ("t-core-jhmdb", (20, 20, 7, 0.7, (320, 320), False, False)),
    ],
)
def test_presets_are_the_published_numbers(name, values):
    assert tuple(getattr(PRESETS[name], column) for column in COLUMNS) == values
    assert len(PRESETS) == 11


def test_presets_differ_where_the_methods_do():
    assert PRESETS["hvc"] == Protocol()
    assert PRESETS["sfc"].merge_weight == 1.75
    of_hvc_alone = {
        "image_resize": "aligned",
        "label_resize": "aligned",
        "first_frame": "resampled",
        "late_objects": "inject",
    }
    for field, value in of_hvc_alone.items():  # the others build on CRW's or UVC's tester
        assert [name for name, protocol in PRESETS.items() if getattr(protocol, field) == value] == ["hvc"]
    assert {name for name, protocol in PRESETS.items() if protocol.joint_first_frame} == {"vfs"}
    assert len({protocol.digest() for protocol in PRESETS.values()}) == len(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_resolved_protocol_reads_back(name):
    assert Protocol.parse(PRESETS[name].resolved()) == PRESETS[name]


@pytest.mark.parametrize(
    "override",
    [
        "input_size=7",
        "input_size=[320]",
        "input_size=[320,4]",
        "radius=0",
        "merge_weight=0",
        "joint_peaks=4",
    ],
)
def test_values_out_of_range_are_refused(override):
    with pytest.raises(UsageError, match=override.split("=")[0]):
        Protocol.parse({}, [override])


def test_sizes_and_no_radius_are_taken():
    protocol = Protocol.parse({}, ["input_size=[320,560]", "radius=null"])
    assert protocol.input_size == (320, 560)
    assert protocol.radius is None
