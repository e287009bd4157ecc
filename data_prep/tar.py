"""Tar (ustar) headers as bytes: what is the same for all members is written once, here.

The result is what `tarfile` writes for USTAR_FORMAT: regular files of mode 0444 and user and group `hvc`,
without a time, so that who made a shard, and when, never shows in its hash.
"""

BLOCK = 512
"""Headers are one block; data is padded to whole blocks."""

NAME_BYTES = 100
"""Longest member name, in bytes."""

SIZE_LIMIT = 8 << 30
"""A member is smaller than this: its size has 11 octal digits."""

_RECORD = 20 * BLOCK  # tar files end at a multiple of this
_MODE_AND_OWNER = b"0000444\x00" + 2 * b"0000000\x00"  # octal; the owner has number 0 in group 0
_TIME = b"\x00" + b"0" * 11 + b"\x00"  # with the end of the size before it
_BEFORE_NAMES = b"\x00 0" + bytes(100) + b"ustar\x0000"  # end of the checksum, a regular file, no link
_NAMES = b"hvc".ljust(32, b"\0") * 2  # user and group
_FIXED_SUM = sum(_MODE_AND_OWNER + _TIME + b" " * 8 + _BEFORE_NAMES[2:] + _NAMES)
"""Of all bytes but name and size; the checksum itself counts as spaces."""
_TAIL = _BEFORE_NAMES + _NAMES + bytes(BLOCK - 329)
_PADDING = [bytes(-size % BLOCK) for size in range(BLOCK)]


def header(name: str, size: int) -> bytes:
    """The header block of a member of `size` bytes; ValueError when it does not fit the format."""
    text, digits = name.encode(), b"%011o" % size
    if not 0 < len(text) <= NAME_BYTES or b"\0" in text or not 0 <= size < SIZE_LIMIT:
        raise ValueError(f"member {name!r} of {size} bytes does not fit a plain tar")
    checksum = b"%06o" % (_FIXED_SUM + sum(text) + sum(digits))
    return b"".join([text.ljust(NAME_BYTES, b"\0"), _MODE_AND_OWNER, digits, _TIME, checksum, _TAIL])


def padding(size: int) -> bytes:
    """What follows data of `size` bytes, up to the next whole block."""
    return _PADDING[size % BLOCK]


def end(size: int) -> bytes:
    """What ends an archive whose members take `size` bytes: two empty blocks and filling."""
    return bytes(2 * BLOCK + -(size + 2 * BLOCK) % _RECORD)
