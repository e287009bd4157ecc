"""Which checkpoints may go: the promises hold for any set of steps."""

from hypothesis import given
from hypothesis import strategies as st

from hvc.pretrain.checkpoints.marker import step_name, step_of
from hvc.pretrain.checkpoints.retention import expendable

STEPS = st.sets(st.integers(0, 60), max_size=20)


@given(STEPS, STEPS, st.integers(0, 60), st.integers(1, 6), st.one_of(st.none(), st.integers(1, 9)), STEPS)
def test_promises(steps, damaged, newest, keep, keep_every, pinned):
    steps = steps | {newest}
    whole = steps - damaged | {newest}
    options = {"keep": keep, "keep_every": keep_every, "pinned": pinned}
    gone = expendable(steps, whole, newest, **options)
    left = steps - set(gone)
    counted = sorted(step for step in whole if step <= newest)
    assert gone == sorted(set(gone) & steps)
    assert {step for step in steps if step >= newest} <= left
    assert set(counted[-keep:]) <= left
    assert steps & pinned <= left
    assert {step for step in steps if keep_every and step % keep_every == 0} <= left
    # What is not promised goes, once there are `keep` good ones.
    if len(counted) >= keep:
        promised = pinned | {step for step in steps if keep_every and step % keep_every == 0}
        assert {step for step in left if step < counted[-keep]} <= promised
    else:
        assert not gone
    assert expendable(left, whole & left, newest, **options) == []


@given(st.integers(0, 10**12))
def test_a_folder_name_says_its_step(step):
    assert step_of(step_name(step)) == step


def test_other_names_say_none():
    for name in ("step-1", "step-000000001", "step-0000000x", "step-00000001-old", "step-00000001\n", "x"):
        assert step_of(name) is None
