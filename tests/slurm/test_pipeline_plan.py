"""What a pipeline submits, as properties: all of it, once, each behind what it needs."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hvc.slurm.pipeline_plan import Dependency, Task, batches, cause_of, dependency_text, digest_of


def task(key, step, stage="train", need=None, parts=1):
    return Task(key, step, stage, digest_of(key), f"/out/{key}", need=need, parts=parts)


@st.composite
def pipelines(draw):
    """shard? -> train, or several -> evaluations of each, and one of a baseline that needs nothing."""
    tasks, shard, parts = [], draw(st.booleans()), draw(st.sampled_from([1, 3]))
    if shard:
        tasks.append(task("shard", "shard", "shard", parts=parts))
    members = draw(st.integers(1, 4))
    names = [f"train/{n}" for n in range(members)]
    tasks += [task(name, "train", need="shard" if shard else None) for name in names]
    for number in range(draw(st.integers(0, 2))):
        step, split = f"evaluate-{number}", draw(st.sampled_from([1, 3]))
        made = [task(f"{step}/{name}", step, "evaluate", need=name, parts=split) for name in names]
        tasks += made
    if draw(st.booleans()):
        tasks.append(task("evaluate-baseline", "evaluate-baseline", "evaluate"))
    return tasks


@st.composite
def situations(draw):
    """A pipeline, which of its tasks are done, and which are under way."""
    tasks = draw(pipelines())
    states: dict[str, str] = {}
    for one in tasks:
        choices = ["missing", "live", "done"]
        states[one.key] = draw(st.sampled_from(choices))
    done = {key for key, state in states.items() if state == "done"}
    live = {key: f"{n + 100}" for n, (key, state) in enumerate(states.items()) if state == "live"}
    return tasks, done, live


def finishers(made):
    """Batches after which a task is done."""
    return [batch for batch in made if batch.role != "parts"]


@given(situations())
def test_all_that_is_missing_is_submitted_once_and_nothing_else(situation):
    tasks, done, live = situation
    keys = [one.key for batch in finishers(batches(tasks, done, live)) for one in batch.tasks]
    assert sorted(keys) == sorted(one.key for one in tasks if one.key not in done and one.key not in live)


@given(situations())
def test_a_task_waits_for_exactly_what_it_needs(situation):
    tasks, done, live = situation
    made = batches(tasks, done, live)
    for number, batch in enumerate(made):
        for index, one in enumerate(batch.tasks):
            waits = [after for after in batch.after if after.kind != "afterany"]
            if one.need is None or one.need in done:
                assert waits == []
            elif one.need in live:
                assert waits == [Dependency("afterok", job=live[one.need])]
            else:
                (after,) = waits
                before = made[after.batch]
                assert after.batch < number
                assert before.role != "parts"
                if after.kind == "aftercorr":
                    assert len(batch.tasks) == len(before.tasks)
                    assert before.tasks[index].key == one.need
                else:
                    assert before.tasks[after.index or 0].key == one.need
                    assert (after.index is None) == (len(before.tasks) == 1)


@given(situations())
def test_parts_are_joined_right_behind_them(situation):
    made = batches(*situation)
    for number, batch in enumerate(made):
        if batch.role == "parts":
            join = made[number + 1]
            assert (join.role, join.tasks) == ("join", batch.tasks)
            assert join.after == (*batch.after, Dependency("afterany", batch=number)), "and not by itself"
        else:
            assert batch.role == "join" or all(one.parts == 1 for one in batch.tasks)


@given(pipelines())
def test_done_means_nothing_to_do_and_a_failure_only_what_follows_it(tasks):
    every = {one.key for one in tasks}
    assert batches(tasks, every, {}) == []
    assert batches(tasks, set(), dict.fromkeys(every, "1")) == []
    for failed in tasks:
        missing = {failed.key}
        for one in tasks:
            if one.need in missing:
                missing.add(one.key)
        made = batches(tasks, every - missing, {})
        assert {one.key for batch in made for one in batch.tasks} == missing
        for key in missing - {failed.key}:
            (one,) = [one for one in tasks if one.key == key]
            assert cause_of(one, tasks, every - missing) == failed


@given(pipelines())
def test_killed_after_any_submission_the_rest_follows_and_nothing_twice(tasks):
    """As if all that was submitted so far were queued: the same command goes on."""
    whole = batches(tasks, set(), {})
    for kept in range(len(whole) + 1):
        live = {
            one.key: f"{number}_{index}"
            for number, batch in enumerate(whole[:kept])
            for index, one in enumerate(batch.tasks)
            if batch.role != "parts"
        }
        rest = [one.key for batch in finishers(batches(tasks, set(), live)) for one in batch.tasks]
        assert sorted([*live, *rest]) == sorted(one.key for one in tasks)


def test_a_sweep_is_one_array_and_its_evaluations_another():
    tasks = [task("shard", "shard"), *(task(f"train/{n}", "train", need="shard") for n in range(3))]
    tasks += [task(f"evaluate/{n}", "evaluate", "evaluate", need=f"train/{n}") for n in range(3)]
    _, train, evaluate = batches(tasks, set(), {})
    assert [one.key for one in train.tasks] == ["train/0", "train/1", "train/2"]
    assert dependency_text(train.after, {0: "16"}) == "afterok:16"
    assert dependency_text(evaluate.after, {1: "17"}) == "aftercorr:17"
    again = batches(tasks, {"shard", "train/0", "evaluate/0", "train/2", "evaluate/2"}, {})
    assert [[one.key for one in batch.tasks] for batch in again] == [["train/1"], ["evaluate/1"]]
    assert dependency_text(again[1].after, {0: "18"}) == "afterok:18"


def test_what_is_waited_for_in_words():
    after = (Dependency("afterok", job="7_3"), Dependency("afterok", batch=1, index=2))
    assert dependency_text(after, {1: "9"}) == "afterok:7_3,afterok:9_2"
    assert dependency_text((), {}) is None


def test_a_digest_follows_from_values_alone():
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    assert replace(task("a", "s"), config={"x": 1}) == task("a", "s"), "the digest says what matters"
