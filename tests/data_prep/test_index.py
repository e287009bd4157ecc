"""The index file: what goes in comes out, and damage is noticed."""

import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hvc.base.errors import HvcError
from hvc.data_prep.images import EXTENSIONS
from hvc.data_prep.index import Member, ShardIndex

EXTS = ["jpg", "png", "json", "cls", "mask.png", "flow_x.tif"]
places = st.builds(
    Member,
    st.integers(1, 2**52).map(lambda block: 512 * block),
    st.integers(0, 2**61),
    st.integers(0, 2**32 - 1),
)
members = st.dictionaries(st.sampled_from(EXTS), places, max_size=6)
keys = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=".\0"), min_size=1, max_size=12)
samples = st.lists(st.tuples(keys, members), max_size=30)


@given(samples)
def test_round_trip(table):
    data = ShardIndex.build(table).to_bytes()
    index = ShardIndex.from_bytes(data)
    assert [(index.key(i), index.members(i)) for i in range(len(index))] == table
    assert index.to_bytes() == data


@given(samples)
def test_columns_agree_with_members(table):
    index = ShardIndex.from_bytes(ShardIndex.build(table).to_bytes())
    for ext in EXTS:
        offsets, lengths = index.offsets(ext)
        crcs = index.crcs(ext)
        assert (offsets.dtype, lengths.dtype, crcs.dtype) == (np.uint64, np.uint64, np.uint32)
        expected = [members.get(ext, (0, 0, 0)) for _, members in table]
        assert list(zip(offsets.tolist(), lengths.tolist(), crcs.tolist(), strict=True)) == expected


@given(samples)
def test_images_are_found_without_looking_at_masks(table):
    index = ShardIndex.from_bytes(ShardIndex.build(table).to_bytes())
    offsets, lengths, crcs = index.image_places(EXTENSIONS)
    assert (offsets.dtype, lengths.dtype, crcs.dtype) == (np.int64, np.int64, np.uint32)
    expected = [members.get("jpg") or members.get("png") or (0, 0, 0) for _, members in table]
    assert list(zip(offsets.tolist(), lengths.tolist(), crcs.tolist(), strict=True)) == expected


TABLE = [
    ("000000001", {"jpg": (512, 100, 7), "json": (2048, 40, 8)}),
    ("000000007", {"png": (4096, 9, 2**32 - 1)}),
]


def version_1(table):
    """The same index as it was written before there were CRCs."""
    exts = sorted({ext for _, members in table for ext in members})
    text = b"".join(key.encode() for key, _ in table)
    data = b"HVCINDEX" + struct.pack("<IIQQ", 1, len(exts), len(table), len(text))
    data += b"".join(ext.encode().ljust(16, b"\0") for ext in exts)
    data += np.cumsum([len(key.encode()) for key, _ in table], dtype="<u8").tobytes() + text
    for ext in exts:
        for part in (0, 1):
            numbers = [members.get(ext, (0, 0))[part] for _, members in table]
            data += np.array(numbers, "<u8").tobytes()
    return data


def test_version_1_is_still_read():
    data = version_1(TABLE)
    index = ShardIndex.from_bytes(data)
    assert index.members(0) == {"jpg": (512, 100, None), "json": (2048, 40, None)}
    assert index.crcs("jpg") is None
    assert index.crcs("txt") is None
    offsets, lengths, crcs = index.image_places(EXTENSIONS)
    assert (offsets.tolist(), lengths.tolist(), crcs) == ([512, 4096], [100, 9], None)
    assert index.to_bytes() == data


@pytest.mark.parametrize("data", [ShardIndex.build(TABLE).to_bytes(), version_1(TABLE)])
def test_every_truncation_and_extension_is_noticed(data):
    for wrong in [data[:length] for length in range(len(data))] + [data + b"\0"]:
        with pytest.raises(HvcError, match=r"a\.idx is damaged"):
            ShardIndex.from_bytes(wrong, "a.idx")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, b"X", "does not begin like"),
        (8, struct.pack("<I", 3), "index version 3"),
        (8, struct.pack("<I", 0), "version 0"),
        (12, struct.pack("<I", 2**31), "its head promises"),
        (12, struct.pack("<I", 2**32 - 1), "its head promises"),
        (16, struct.pack("<Q", 2**63), "its head promises"),
        (16, struct.pack("<QQ", 2**64 - 1, 2**64 - 1), "its head promises"),
        (32, b"zzz", "in order"),
        (32, b"jpg\0json", "in order"),
        (32, b"../", "in order"),
        (32, b"JPG", "in order"),
        (80, struct.pack("<Q", 999), "keys do not follow"),
        (80, struct.pack("<Q", 0), "keys do not follow"),
        (80, struct.pack("<Q", 2**64 - 1), "keys do not follow"),
        (96, b"\xff", "not UTF-8"),
        (96, b".", "without a dot"),
        (104, "é".encode(), "not UTF-8"),  # one key ends, the next begins inside a character
        (114, struct.pack("<Q", 513), "no tar can have"),
        (114, struct.pack("<Q", 2**63), "no tar can have"),
        (130, struct.pack("<Q", 2**64 - 1), "no tar can have"),
        (114, struct.pack("<Q", 0), "absent has a length"),
        (150, struct.pack("<I", 1), "absent has a length or a CRC"),
    ],
)
def test_damage_is_named(place, value, message):
    data = bytearray(ShardIndex.build(TABLE).to_bytes())
    data[place : place + len(value)] = value
    with pytest.raises(HvcError, match=message):
        ShardIndex.from_bytes(bytes(data))


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(keys, members), min_size=1, max_size=5),
    st.booleans(),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.integers(-3, 3),
)
@example(TABLE, True, [(8 / 246, 1)], 0)
def test_mutated_bytes_give_an_index_or_an_error_for_people(table, old, changes, more):
    data = bytearray(version_1(table) if old else ShardIndex.build(table).to_bytes())
    for place, value in changes:
        data[int(place * len(data))] = value
    data = bytes(data[: len(data) + min(more, 0)]) + b"\0" * more
    try:
        index = ShardIndex.from_bytes(data)
    except HvcError:
        return
    offsets, lengths, _ = index.image_places(EXTENSIONS)
    assert len(offsets) == len(lengths) == len(index)
    assert (offsets >= 0).all()
    assert (lengths >= 0).all()
    for i in range(len(index)):
        assert "." not in index.key(i)
        assert all(place.offset % 512 == 0 for place in index.members(i).values())
    assert ShardIndex.from_bytes(index.to_bytes()).extensions == index.extensions


@pytest.mark.parametrize(
    "sample",
    [
        ("a.b", {}),
        ("", {}),
        ("a", {"JPG": (512, 1, 0)}),
        ("a", {"": (512, 1, 0)}),
        ("a", {"x" * 17: (512, 1, 0)}),
        ("a", {"jpg": (100, 1, 0)}),
    ],
)
def test_what_the_format_cannot_hold_is_not_written(sample):
    with pytest.raises(ValueError, match=r"its keys|extensions|no tar"):
        ShardIndex.build([sample])


def test_an_index_is_small():
    table = [(f"{i:09d}", {"jpg": (i * 512, 500, i), "json": (i * 512, 40, i)}) for i in range(1, 1001)]
    assert len(ShardIndex.build(table).to_bytes()) < 60 * 1000
