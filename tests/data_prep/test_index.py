"""The index file: what goes in comes out, and damage is noticed."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvc.base.errors import HvcError
from hvc.data_prep.index import ShardIndex

places = st.tuples(st.integers(1, 2**63), st.integers(0, 2**63))
members = st.dictionaries(st.sampled_from(["jpg", "png", "json", "cls"]), places, max_size=4)
samples = st.lists(
    st.tuples(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), members),
    max_size=30,
)


@given(samples)
def test_round_trip(table):
    data = ShardIndex.build(table).to_bytes()
    index = ShardIndex.from_bytes(data)
    assert [(index.key(i), index.members(i)) for i in range(len(index))] == table
    assert index.to_bytes() == data


@given(samples)
def test_columns_agree_with_members(table):
    index = ShardIndex.from_bytes(ShardIndex.build(table).to_bytes())
    for ext in ("jpg", "png", "json", "cls"):
        offsets, lengths = index.offsets(ext)
        assert offsets.dtype == lengths.dtype == np.uint64
        expected = [members.get(ext, (0, 0)) for _, members in table]
        assert list(zip(offsets.tolist(), lengths.tolist(), strict=True)) == expected


TABLE = [("000000001", {"jpg": (512, 100), "json": (2048, 40)}), ("000000007", {"png": (4096, 9)})]


def test_every_truncation_and_extension_is_noticed():
    data = ShardIndex.build(TABLE).to_bytes()
    for wrong in [data[:length] for length in range(len(data))] + [data + b"\0"]:
        with pytest.raises(HvcError, match=r"a\.idx is damaged"):
            ShardIndex.from_bytes(wrong, "a.idx")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, b"X", "does not begin like"),
        (8, struct.pack("<I", 2), "index version 2"),
        (12, struct.pack("<I", 2**31), "its head promises"),
        (16, struct.pack("<Q", 2**63), "its head promises"),
        (32, b"zzz", "names in order"),
        (32, b"jpg\0json", "names in order"),
        (32 + 3 * 16, struct.pack("<Q", 999), "keys do not follow"),
    ],
)
def test_damage_is_named(place, value, message):
    data = bytearray(ShardIndex.build(TABLE).to_bytes())
    data[place : place + len(value)] = value
    with pytest.raises(HvcError, match=message):
        ShardIndex.from_bytes(bytes(data))


def test_an_index_is_small():
    table = [(f"{i:09d}", {"jpg": (i * 1024 + 512, 500), "json": (i * 1024, 40)}) for i in range(1000)]
    assert len(ShardIndex.build(table).to_bytes()) < 50 * 1000
