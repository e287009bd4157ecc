"""Damage to bytes and to plain data, by seed, and a limit on the time that reading it may take."""

import copy
import os
import signal
import struct
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

SOAK = bool(os.environ.get("HVC_SOAK"))
"""Whether the thousands of cases are wanted that would take too long otherwise."""

NASTY_NUMBERS = (0, 1, 2, 3, 127, 255, 511, 513, 4096, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32)
NASTY_LONG = (2**40, 2**53, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 512, 2**64 - 1)


class HangError(BaseException):
    """Reading took too long; no `except Exception` on the way may swallow it."""


@contextmanager
def time_limit(seconds: float = 10.0) -> Iterator[None]:
    """Raise HangError in the main thread if the block takes longer."""

    def stop(*_: object) -> None:
        raise HangError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGUSR1, stop)
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(seconds, signal.pthread_kill, (main, signal.SIGUSR1))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, before)


def quick_and_soak(quick: int, soak: int) -> pytest.MarkDecorator:
    """The test's argument `count`: few cases, or with HVC_SOAK many."""
    return pytest.mark.parametrize("count", [pytest.param(soak if SOAK else quick, marks=pytest.mark.soak)])


def more_in_soak(quick: list[Any], soak: list[Any]) -> list[Any]:
    """Values of a parameter (tuples: of several): those of every run, and others for the long trials."""
    values = (value if isinstance(value, tuple) else (value,) for value in soak if SOAK)
    return [*quick, *(pytest.param(*value, marks=pytest.mark.soak) for value in values)]


class Cases:
    """Seeded cases, always the same ones; all that fail are shown at the end."""

    def __init__(self, family: str, count: int) -> None:
        only = os.environ.get("HVC_FUZZ_CASE")
        self._family, self._numbers = family, range(count) if only is None else [int(only)]
        self._failed: list[str] = []

    def __iter__(self) -> Iterator[Random]:
        for number in self._numbers:
            self._number = number
            yield Random(f"{self._family} {number}")
        assert not self._failed, f"{len(self._failed)} cases failed:\n" + "\n".join(self._failed[:50])

    @contextmanager
    def case(self, what: object) -> Iterator[None]:
        """Within the time limit; an exception counts against the case, and the next one begins."""
        try:
            with time_limit():
                yield
        except (Exception, HangError) as error:  # noqa: BLE001 (all of them are shown at the end)
            trace = traceback.extract_tb(error.__traceback__)[-4:]
            where = " > ".join(f"{Path(call.filename).name}:{call.lineno}" for call in trace)
            reason = f"{type(error).__name__}: {error}"[:300]
            self._failed.append(
                f"{self._family}, {what}, HVC_FUZZ_CASE={self._number}: {reason} at {where}"
            )


def damaged(data: bytes, rng: Random) -> bytes:
    """The same bytes after one to three blows."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(_BLOWS)(data, rng)
    return data


def _flip_bit(data: bytes, rng: Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if data else data


def _set_byte(data: bytes, rng: Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + bytes([rng.choice((0, 1, 0x2E, 0x2F, 0x7F, 0x80, 0xFF))]) + data[at + 1 :]


def _truncate(data: bytes, rng: Random) -> bytes:
    return data[: _place(data, rng)]


def _cut_out(data: bytes, rng: Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + _length(data, rng) :]


def _insert(data: bytes, rng: Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.randbytes(_length(data, rng)) + data[at:]


def _zero(data: bytes, rng: Random) -> bytes:
    at, length = _place(data, rng), _length(data, rng)
    return data[:at] + bytes(len(data[at : at + length])) + data[at + length :]


def _swap_blocks(data: bytes, rng: Random) -> bytes:
    size = rng.choice((1, 8, 64, 512, 4096))
    blocks = [data[at : at + size] for at in range(0, len(data), size)]
    if len(blocks) > 1:
        one, other = rng.sample(range(len(blocks)), 2)
        blocks[one], blocks[other] = blocks[other], blocks[one]
    return b"".join(blocks)


def _repeat(data: bytes, rng: Random) -> bytes:
    at, length = _place(data, rng), _length(data, rng)
    return data[: at + length] + data[at:]


def _append(data: bytes, rng: Random) -> bytes:
    return data + rng.choice((bytes, rng.randbytes))(_length(data, rng))


def _lie(data: bytes, rng: Random) -> bytes:
    """A number in the bytes becomes an extreme one."""
    form = rng.choice(("<H", "<I", "<Q", ">H", ">I"))
    size = struct.calcsize(form)
    if len(data) < size:
        return data
    at = _place(data[: len(data) - size + 1], rng)
    if rng.random() < 0.7:
        at -= at % size
    number = rng.choice(NASTY_NUMBERS + NASTY_LONG) % 256**size
    return data[:at] + struct.pack(form, number) + data[at + size :]


_TAR_NAMES = (b"../../evil.jpg\0", b"/etc/passwd\0", b"x.tar\0", b"\0", b"\xff\xfe.jpg\0", b"a" * 100)
_TAR_LIES = (
    (124, b"77777777777\0"),  # size
    (124, b"00000000000\0"),
    (124, b"00000001000\0"),
    (124, b"-0000000001\0"),
    (124, b"\x80" + b"\xff" * 11),
    *((156, bytes([kind])) for kind in b"0123456789LKxgSVMN\0\xff"),
    (345, b"../deeper\0"),  # what comes before the name
)


def _lie_in_tar(data: bytes, rng: Random) -> bytes:
    """A field of a tar header changes, and its checksum with it; other bytes are hit anywhere."""
    starts = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not starts:
        return _lie(data, rng)
    at = rng.choice(starts)
    header = bytearray(data[at : at + 512])
    field, value = rng.choice((*((0, name) for name in _TAR_NAMES), *_TAR_LIES))
    header[field : field + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:at] + bytes(header) + data[at + 512 :]


_BLOWS: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip_bit,
    _flip_bit,
    _set_byte,
    _truncate,
    _cut_out,
    _insert,
    _zero,
    _swap_blocks,
    _repeat,
    _append,
    _lie,
    _lie,
    _lie_in_tar,
)


def _place(data: bytes, rng: Random) -> int:
    """Anywhere; more often near the ends, where heads and directories are."""
    size = len(data)
    if not size:
        return 0
    near = min(size, 128)
    return rng.choice((rng.randrange(size), rng.randrange(near), size - 1 - rng.randrange(near)))


def _length(data: bytes, rng: Random) -> int:
    return rng.choice((1, 2, 3, 8, 16, 100, 512, 1024, max(len(data) // 2, 1)))


NASTY_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**53,
    2**63,
    2**64,
    10**30,
    1.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "..",
    "../secret",
    "/etc/passwd",
    "a/../../secret",
    "a\0b",
    "\ud800",
    "x" * 10_000,
    "0" * 64,
    "manifest.json",
    [],
    {},
    [[[[]]]],
    {"path": "../secret"},
)


def changed(plain: Any, rng: Random) -> Any:
    """The same JSON data with one value somewhere in it changed, removed, or doubled."""
    value = copy.deepcopy(rng.choice(NASTY_VALUES))
    places = list(_places(plain))
    holder, key = rng.choice(places)
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(key, copy.deepcopy(rng.choice(holder)))
        case 2 if isinstance(holder, dict):
            holder[rng.choice(("surprise", "__class__", ""))] = value
        case 3 if isinstance(holder[key], int | float):
            holder[key] += rng.choice((-1, 1, 512, 2**31))
        case 4:
            other, name = rng.choice(places)
            holder[key] = copy.deepcopy(other[name])
        case _:
            holder[key] = value
    return plain


def _places(plain: Any) -> Iterator[tuple[Any, Any]]:
    pairs: Any = plain.items() if isinstance(plain, dict) else enumerate(plain)
    for key, value in list(pairs):
        yield plain, key
        if isinstance(value, dict | list):
            yield from _places(value)
