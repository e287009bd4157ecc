"""Who labels which sequences, and how many processes that takes."""

from hypothesis import given
from hypothesis import strategies as st

from hvc.evaluation.labelling.sharing import free_memory, longest_first, share, worker_bytes, worker_count

LENGTHS = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(1, 300), max_size=40)


@given(LENGTHS, st.integers(1, 9))
def test_parts_together_are_everything_once_and_even(lengths, parts):
    shares = [share(lengths, parts, part) for part in range(parts)]
    names = [name for names in shares for name in names]
    assert sorted(names) == sorted(lengths)
    loads = [sum(lengths[name] for name in names) for names in shares]
    # whoever has most got its last sequence when it had least
    least, most = min(loads), max(loads)
    assert most - least <= max((lengths[names[-1]] for names in shares if names), default=0) or (
        most == max(lengths.values(), default=0)
    )
    for names in shares:
        assert names == longest_first({name: lengths[name] for name in names})


@given(LENGTHS)
def test_the_order_of_the_data_is_of_no_matter(lengths):
    backwards = dict(reversed(lengths.items()))
    assert [share(lengths, 3, part) for part in range(3)] == [
        share(backwards, 3, part) for part in range(3)
    ]


def test_processes_are_as_many_as_work_cores_and_memory_allow():
    much = 10**9
    assert worker_count(0, 20, 8, 10**12, 10**9, much) == 8
    assert worker_count(0, 3, 8, 10**12, 10**9, much) == 3
    assert worker_count(0, 20, 8, 3 * 10**9, 10**9, much) == 2
    assert worker_count(0, 20, 8, 10**6, 10**9, much) == 1
    assert worker_count(0, 20, 8, 10**12, 10**9, 10 * 72 * 96) == 1
    assert worker_count(16, 20, 8, 10**6, 10**9, 1) == 16
    assert worker_count(16, 2, 8, 10**6, 10**9, 1) == 2


def test_a_process_needs_what_its_context_needs():
    base = worker_bytes((480, 854), 0)
    assert worker_bytes((480, 854), 50) - base == 50 * 4 * 256 * 60 * 107
    assert worker_bytes((480, 854), 50, merged=True) > 2 * worker_bytes((480, 854), 50) - base
    assert 0 < free_memory() < 10**14
