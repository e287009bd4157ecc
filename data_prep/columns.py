"""Columns that grow: plain arrays instead of an object per record, and nothing where nobody has a value."""

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class OptionalColumn:
    """Numbers of which any may be missing; costs no memory until the first one is there."""

    def __init__(self, typecode: str, missing: float) -> None:
        self._values: array[Any] = array(typecode)
        self._missing: array[Any] = array(typecode, [missing])
        self._absent = 0

    def extend(self, values: Sequence[Any]) -> None:
        """Append; None stands for a missing value."""
        absent = values.count(None)
        if absent == len(values) and not self._values:
            self._absent += absent
            return
        self._fill()
        if absent:
            missing = self._missing[0]
            self._values.extend([missing if value is None else value for value in values])
        else:
            self._values.extend(values)

    def skip(self, count: int) -> None:
        """Append so many missing values."""
        self._absent += count
        if self._values:
            self._fill()

    def finished(self) -> NDArray[Any] | None:
        """The column, or None if no value was ever there."""
        if not self._values:
            return None
        return np.frombuffer(self._values, self._values.typecode)

    def _fill(self) -> None:
        if self._absent:
            self._values.extend(self._missing * self._absent)
            self._absent = 0


class Texts:
    """Strings in one block of bytes. Names that are no valid Unicode survive (surrogateescape)."""

    def __init__(self) -> None:
        self._blob = bytearray()
        self._ends = array("q", [0])

    def extend(self, texts: Sequence[str]) -> None:
        """Append strings."""
        joined = "".join(texts)
        if joined.isascii():  # a length in characters is one in bytes
            lengths = np.fromiter(map(len, texts), np.int64, len(texts))
            self._blob += joined.encode()
        else:
            encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
            lengths = np.fromiter(map(len, encoded), np.int64, len(texts))
            self._blob += b"".join(encoded)
        self._ends.frombytes((np.cumsum(lengths) + self._ends[-1]).tobytes())

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> str:
        start, end = self._ends[number], self._ends[number + 1]
        return self._blob[start:end].decode("utf-8", "surrogateescape")

    def parts(self) -> tuple[bytearray, NDArray[np.int64]]:
        """The block, and where in it each string ends (after a leading 0)."""
        return self._blob, np.frombuffer(self._ends, np.int64)


class Names:
    """Strings that recur, each kept once and known by its number in order of first appearance."""

    def __init__(self) -> None:
        self.known: dict[str | None, int] = {}

    def numbers(self, names: Sequence[str | None]) -> list[int | None]:
        """The number of each name (None for None)."""
        if names.count(None) == len(names):
            return [None] * len(names)
        known = self.known
        for name in dict.fromkeys(names):
            if name is not None and name not in known:
                known[name] = len(known)
        return list(map(known.get, names))
