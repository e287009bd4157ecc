"""Compiled kernels where machine code cannot be kept."""

import subprocess
import sys
import textwrap

from hvc.evaluation.propagation.compiled import compiled


def test_a_kernel_works_where_no_folder_can_be_written(tmp_path):
    """Neither beside the source nor in the user's cache folder: both would have to be inside /dev/null."""
    source = textwrap.dedent("""
        import numba
        from hvc.evaluation.propagation.compiled import compiled

        def double(x):
            return 2 * x

        try:
            numba.njit(cache=True)(double)
        except RuntimeError:
            print("no folder")
        print(compiled(relaxed=True)(double)(21.0))
    """)
    script = f"exec(compile({source!r}, '/dev/null/kernels.py', 'exec'))"
    places = {"XDG_CACHE_HOME": "/dev/null", "HOME": "/dev/null", "NUMBA_CACHE_DIR": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], env=places, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split("\n")[:2] == ["no folder", "42.0"]


def test_infinities_and_nan_keep_their_meaning():
    @compiled(relaxed=True)
    def classify(x):
        return x == float("inf"), x != x

    assert [classify(x) for x in (1.0, float("inf"), float("nan"))] == [
        (False, False),
        (True, False),
        (False, True),
    ]
