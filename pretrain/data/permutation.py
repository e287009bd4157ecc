"""Random orders that stay what they are.

numpy keeps raw bit streams (`PCG64` of a list of numbers) over versions; what `Generator` makes of them
it may change. A run that goes on under a newer numpy must not see another order, so every draw here is
raw 64-bit words and stable sorting.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Purpose(IntEnum):
    """What a stream of bits is for: draws for different purposes have nothing in common."""

    BLOCKS = 1
    WINDOW = 2
    SUBSET = 3
    FRAMES = 4
    WEIGHTS = 5


def raw_bits(count: int, purpose: Purpose, seed: int, *numbers: int) -> NDArray[np.uint64]:
    """uint64 [count], a function of purpose, seed (0 <= seed < 2**64) and numbers (each below 2**32).

    numpy cuts what it is given into 32-bit words and fills up with zeros: purpose first and two words for
    the seed keep one list of numbers from reading like another.
    """
    words = [int(purpose), seed & 0xFFFFFFFF, seed >> 32, *numbers]
    return np.random.PCG64(words).random_raw(count)


def permutation(count: int, purpose: Purpose, seed: int, *numbers: int) -> NDArray[np.int64]:
    """0 .. count-1 in an order drawn from the numbers."""
    return np.argsort(raw_bits(count, purpose, seed, *numbers), kind="stable")


def interleaved(groups: NDArray[np.int64], bits: NDArray[np.uint64]) -> NDArray[np.int64]:
    """A random order of n entries that spreads the entries of each group evenly over it.

    Of `g` equally large groups any `g` entries in a row are of `g` different ones.

    Args:
        groups: [n] ascending group numbers.
        bits: [2n] random words.

    Returns:
        [n] the entries (0 .. n-1) in their order.
    """
    count = len(groups)
    inside = np.lexsort((bits[:count], groups))
    first = np.searchsorted(groups, groups)
    size = np.searchsorted(groups, groups, side="right") - first
    longest = int(size.max(initial=1))
    # An entry's turn: its place in its own group, stretched to the length of the longest group.
    turn = (2 * (np.arange(count) - first) + 1) * longest // (2 * size)
    return inside[np.lexsort((bits[count + first], turn))]  # groups always in the same, random order
