"""Numeric kernels compiled to machine code: numba behind one typed decorator."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(*, relaxed: bool = False) -> Callable[[Function], Function]:
    """Compile a function of numbers and arrays at its first call; other threads run meanwhile.

    The machine code is kept beside the source, or in the user's cache folder where that cannot be
    written, so that a later process starts without compiling. Where neither can be written, each process
    compiles for itself.

    Args:
        relaxed: sums may be taken in any order and multiplications joined with additions, which is
            what lets dot products use vector registers. NaN and infinities keep their meaning.
    """
    flags = {"reassoc", "contract", "nsz"} if relaxed else False
    options = {"nogil": True, "fastmath": flags}

    def decorate(function: Function) -> Function:
        try:
            return cast(Function, numba.njit(cache=True, **options)(function))
        except RuntimeError:  # no folder for the machine code
            return cast(Function, numba.njit(**options)(function))

    return decorate
