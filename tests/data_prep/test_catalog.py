"""The catalog gives back what was put in, in order, and its digest notices all that decides the samples."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvc.base.errors import HvcError
from hvc.data_prep.catalog import Catalog, Extra, Record
from hvc.data_prep.tree import Entry, Place


class NoTree:
    address = "somewhere"


def build(*inputs):
    return Catalog.build([(NoTree(), records) for records in inputs])


def numbers(low=0):
    return st.integers(low, 2**57)  # of which 36 still add up in 64 bits


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
PATHS = NAMES | NAMES.map(lambda name: name + "\udce9")  # one that is no valid UTF-8 on disk
PLACES = st.builds(Place, st.integers(-(2**60), 2**60), numbers(-5), st.integers(0, 100), numbers())
EXTRAS = st.builds(
    Extra, st.sampled_from(["txt", "mask.png"]), st.builds(Entry, PATHS, numbers()), st.none() | st.binary()
)


@st.composite
def inputs(draw):
    """One input's records: single images, or frames of videos."""
    records = st.builds(
        Record,
        PATHS,
        numbers(),
        st.none() | PLACES,
        st.none() | NAMES,
        st.none() | NAMES,
        st.none() | numbers(),
        st.none() | st.floats(-1e9, 1e9),
        st.lists(EXTRAS, max_size=2).map(tuple),
    )
    found = draw(st.lists(records, max_size=12, unique_by=lambda record: record.path))
    return sorted(found, key=lambda r: (r.video or "", -1 if r.frame is None else r.frame, r.path))


@settings(max_examples=80, deadline=None)
@given(st.lists(inputs(), max_size=3))
def test_records_come_back_as_they_were(lists):
    catalog = build(*lists)
    flat = [record._replace(input=i) for i, records in enumerate(lists) for record in records]
    assert [catalog.record(i) for i in range(len(catalog))] == flat
    assert catalog.sizes.tolist() == [record.size for record in flat]
    assert catalog.total_bytes == sum(record.size for record in flat)
    assert list(catalog.classes) == sorted({r.label for r in flat if r.label is not None})
    for i, record in enumerate(flat):
        label = catalog.label_number(i)
        assert record.label == (None if label is None else catalog.classes[label])
    if catalog.group_ids is None:
        assert all(record.video is None for record in flat)
    else:
        groups = {}
        for record, group in zip(flat, catalog.group_ids.tolist(), strict=True):
            assert (group < 0) == (record.video is None)
            groups.setdefault(group, set()).add((record.input, record.video) if group >= 0 else "single")
        assert all(len(videos) == 1 for videos in groups.values())
        assert len(set(map(str, groups.values()))) == len(groups)


@settings(max_examples=15, deadline=None)
@given(inputs(), st.integers(1, 40_000))
def test_the_digest_does_not_depend_on_how_records_arrive(records, many):
    plain = [Record(f"{i:09d}.jpg", i) for i in range(many)]
    assert build(plain, records).digest() == build(iter(plain), tuple(records)).digest()


BASE = Record("a/b.jpg", 5, Place(1, 2, 0, 3), "cat", "v", 7, 0.5, (Extra("txt", Entry("a/b.txt", 3)),))


@pytest.mark.parametrize(
    "change",
    [
        {"path": "a/c.jpg"},
        {"size": 6},
        {"label": "dog"},
        {"label": None},
        {"video": "w"},
        {"frame": 8},
        {"time": 0.25},
        {"time": None},
        {"extras": ()},
        {"extras": (Extra("txt", Entry("a/b.txt", 4)),)},
        {"extras": (Extra("txt", Entry("a/b.txt", 3), b"words"),)},
        {"extras": (Extra("mask.png", Entry("a/b.txt", 3)),)},
    ],
)
def test_the_digest_notices(change):
    assert build([BASE]).digest() != build([BASE._replace(**change)]).digest()


def test_the_digest_is_of_what_is_found_not_of_where():
    assert build([BASE]).digest() == build([BASE._replace(place=None)]).digest()
    one, two = Record("a", 1), Record("b", 1)
    catalogs = [build([one, two]), build([one], [two]), build([two], [one])]
    assert len({catalog.digest() for catalog in catalogs}) == 3


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([Record("b.jpg"), Record("a.jpg")], "a.jpg is listed after b.jpg"),
        ([Record("a.jpg"), Record("a.jpg", 3)], "a.jpg is there twice"),
        ([Record("x", video="v", frame=2), Record("y", video="v", frame=1)], "y is listed after x"),
        ([Record("x", video="w", frame=0), Record("y", video="v", frame=1)], "y is listed after x"),
        ([Record("a", video="v"), Record("b")], "b is listed after a"),
        ([Record(f"{i:08d}") for i in range(16_384)] + [Record("00000005")], "00000005 is listed after"),
    ],
)
def test_disorder_is_refused_and_named(records, message):
    with pytest.raises(HvcError, match=f"somewhere: {message}"):
        build(records)


def test_frames_are_ordered_by_number_not_by_name():
    frames = [Record(f"v/{i}.jpg", video="v", frame=i) for i in range(12)]
    assert [build(frames).record(i).frame for i in range(12)] == list(range(12))


def test_nothing_found_is_an_empty_catalog():
    catalog = build([], [])
    assert len(catalog) == 0
    assert catalog.total_bytes == 0
    assert catalog.classes == ()
    assert catalog.group_ids is None
    assert len(catalog.digest()) == 64
