"""What is compared with what, and what MLflow's runs become."""

import csv
import io
import json
import math
import time
from functools import partial

import pytest
from evaluated_runs import Recorded
from rich.console import Console
from running import run_hvc

from hvc.base.errors import HvcError, UsageError
from hvc.evaluation.layouts.benchmarks import BENCHMARKS
from hvc.evaluation.layouts.davis import TEST_DEV_2017, VAL_2016, VAL_2017
from hvc.evaluation.layouts.youtube_vos import VIDEOS
from hvc.evaluation.leaderboard.board import UNKNOWN, Entry, Measured, Unscored, board_of, need_benchmark
from hvc.evaluation.leaderboard.published import PUBLISHED, SEQUENCES, figures_for, headline_of
from hvc.evaluation.leaderboard.runs import best_point, collect, newest_by_step, pictures_from
from hvc.evaluation.leaderboard.text import csv_text, print_board
from hvc.evaluation.metrics.scoring import scorer_of


def measured(name, score, benchmark="davis2017", preset="hvc", digest="d", sequences=30, kind="run"):
    entry = Entry(kind, name, {"jf_mean": score}, step=1, last_step=1, last=score, run_id=name * 4)
    return Measured(entry, benchmark, preset, digest, "jf_mean", sequences)


def keys(board):
    return [(group.benchmark, group.preset, group.digest) for group in board.groups]


def names(group, published=False):
    return [entry.name for entry in group.entries if published or entry.kind != "published"]


def printed(board, limit=30, every=True, width=160):
    console = Console(file=io.StringIO(), width=width)
    print_board(board, "here", console, limit, every)
    return console.file.getvalue()


def test_only_what_was_measured_alike_is_ranked_together():
    board = board_of(
        [
            measured("a", 60.0),
            measured("b", 70.0),
            measured("c", 99.0, preset="custom-ab12cd"),
            measured("d", 98.0, digest="e"),
            measured("e", 97.0, benchmark="davis2016", sequences=20),
            measured("f", 96.0, benchmark="davis2016-merged", sequences=20),
            measured("g", 95.0, preset="hvc-subset-012345", sequences=2),
        ],
        [],
        published=False,
    )
    together = [names(group) for group in board.groups if names(group)]
    assert sorted(together) == [["b", "a"], ["c"], ["d"], ["e"], ["f"], ["g"]]
    assert len(set(keys(board))) == len(board.groups)


def test_published_figures_stand_among_runs_of_the_whole_benchmark_and_its_usual_protocol_only():
    board = board_of(
        [
            measured("whole", 72.5),
            measured("other", 60.0, preset="custom-1"),
            measured("few", 60.0, sequences=4),
        ],
        [],
    )
    with_both = [group for group in board.groups if group.benchmark == "davis2017"]
    joined = {group.preset: len(group.entries) - len(names(group)) for group in with_both if group.whole}
    assert joined == {"hvc": len(figures_for("davis2017")), "custom-1": 0}
    (few,) = [group for group in with_both if not group.whole]
    assert names(few, published=True) == ["few"]
    ranked = names(with_both[0], published=True)
    assert ranked.index("HVC") < ranked.index("whole") < ranked.index("LIIR")


def test_without_a_comparable_run_published_figures_have_a_table_of_their_own():
    alone = board_of([measured("few", 60.0, sequences=4)], [], "davis2017")
    assert keys(alone) == [("davis2017", "hvc", "d"), ("davis2017", "", "")]
    everywhere = {group.benchmark for group in board_of([], []).groups}
    assert everywhere == {figure.benchmark for figure in PUBLISHED}
    assert board_of([], [], published=False).groups == ()


def test_a_score_that_is_not_finite_comes_last():
    (group, *_) = board_of([measured("nan", math.nan), measured("zero", 0.0)], [], "davis2017").groups
    assert names(group) == ["zero", "nan"]


def test_an_unknown_benchmark_is_refused_and_a_folder_of_a_run_is_known():
    need_benchmark("davis2017", [])
    need_benchmark("folder-clip", [measured("a", 1.0, "folder-clip")])
    with pytest.raises(UsageError, match="davis2016-merged"):
        need_benchmark("davis", [])


def test_published_figures_say_where_they_are_from_and_what_merged_is():
    assert set(SEQUENCES) | {"folder"} == set(BENCHMARKS)
    for figure in PUBLISHED:
        assert headline_of(figure.benchmark) in figure.scores
        assert figure.source
        assert all(0 < value < 100 for value in figure.scores.values())
    best = figures_for("davis2017")
    own = [figure for figure in best if figure.method == "HVC"]
    assert [figure.scores["jf_mean"] for figure in own] == [73.1, 73.1, 72.0, 71.1]
    assert all("merged with MoCo-v1 R50" in figure.remark for figure in own)
    (sixteen,) = figures_for("davis2016-merged")
    assert sixteen.scores == {"jf_mean": 80.1}
    assert figures_for("davis2016") == []


def test_headlines_and_counts_are_those_that_scorers_and_readers_have():
    scorers = {name: scorer_of(name) for name in BENCHMARKS}
    headlines = {name: scorer.headline for name, scorer in scorers.items() if scorer is not None}
    assert headlines == {name: headline_of(name) for name in headlines}
    assert {year: SEQUENCES[f"youtube-vos-{year}"] for year in VIDEOS} == VIDEOS
    lists = {"davis2016": VAL_2016, "davis2017": VAL_2017, "davis2017-test-dev": TEST_DEV_2017}
    assert {name: SEQUENCES[name] for name in lists} == {name: len(names) for name, names in lists.items()}


def test_of_points_the_last_word_on_a_step_counts_and_the_later_of_equal_steps():
    points = newest_by_step([(2, 50.0, 10), (1, 60.0, 20), (1, 55.0, 30), (3, 55.0, 5), (4, math.nan, 50)])
    assert points[:3] == [(1, 55.0, 30), (2, 50.0, 10), (3, 55.0, 5)]
    assert best_point(points) == (3, 55.0, 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recorded")


@pytest.fixture
def recorded(folder, request):
    """An experiment of the test's own: to make a database takes seconds."""
    return Recorded(f"sqlite:///{folder}/mlflow.db", request.node.name)


def board_at(recorded, experiment=None):
    found, unscored = collect(recorded.client, recorded.uri, experiment or recorded.name)
    return board_of(found, unscored, published=False)


def test_a_run_stands_with_its_best_step_and_says_what_the_last_one_scored(recorded):
    run = recorded.run("one")
    for step, score in ((100, 50.0), (200, 60.0), (300, 55.0)):
        recorded.evaluation(run, step, score)
    (group,) = board_at(recorded).groups
    (entry,) = [entry for entry in group.entries if entry.kind == "run"]
    assert (entry.step, entry.scores["jf_mean"], entry.scores["j_mean"]) == (200, 60.0, 58.0)
    assert (entry.steps, entry.last_step, entry.last) == (3, 300, 55.0)
    assert entry.history == ((100, 50.0), (200, 60.0), (300, 55.0))
    assert entry.report["per_sequence"]["video-03"] == {"jf_mean": 60.3}
    assert "55.0 @300" in printed(board_at(recorded))


def test_figures_and_files_alone_need_a_report_only_of_a_best_step_that_is_not_the_last(recorded, folder):
    late, early = recorded.run("late"), recorded.run("early")
    for step, score in ((100, 50.0), (200, 60.0)):
        recorded.evaluation(late, step, score)
        recorded.evaluation(early, step, 110 - score)
    collected = partial(collect, recorded.client, recorded.uri, recorded.name)
    whole, figures = (board_of(*collected(reports=reports)) for reports in (True, False))
    assert csv_text(figures) == csv_text(whole)
    best = {f"{late}/**/step-00000200", f"{early}/**/step-00000100"}
    for report in folder.rglob("scores.json"):
        if not any(report.parent in folder.rglob(pattern) for pattern in best):
            report.unlink()
    assert board_of(*collected()) == whole, "no report of other steps is needed"
    for report in folder.rglob(f"{late}/**/scores.json"):
        report.unlink()
    assert csv_text(board_of(*collected(reports=False))) == csv_text(whole)


def test_runs_whose_earlier_scores_say_nothing_of_their_files_are_read_from_reports(recorded):
    run = recorded.run("old")
    recorded.evaluation(run, 100, 70.0, digest="a" * 64, noted=False)
    recorded.evaluation(run, 200, 60.0, digest="b" * 64)
    found, _ = collect(recorded.client, recorded.uri, recorded.name, reports=False)
    assert {(one.digest[0], one.entry.step) for one in found} == {("a", 100), ("b", 200)}


def test_steps_evaluated_on_other_files_are_apart(recorded):
    run = recorded.run("one")
    recorded.evaluation(run, 100, 70.0, digest="a" * 64)
    recorded.evaluation(run, 200, 60.0, digest="a" * 64)
    recorded.evaluation(run, 300, 50.0, digest="b" * 64)
    recorded.evaluation(run, 400, 40.0, digest="b" * 64)
    board = board_at(recorded)
    found = {group.digest[0]: group.entries for group in board.groups}
    rows = {
        digest: [(e.step, e.scores["jf_mean"], e.last_step, e.steps) for e in entries if e.kind == "run"]
        for digest, entries in found.items()
    }
    assert rows == {"a": [(100, 70.0, 200, 2)], "b": [(300, 50.0, 400, 2)]}


def test_failed_runs_and_runs_without_scores_are_listed_as_such(recorded):
    recorded.run("crashed", "FAILED")
    recorded.run("young")
    scored = recorded.run("scored, then failed", "FAILED")
    recorded.evaluation(scored, 1, 50.0)
    board = board_at(recorded)
    assert {(run.name, run.state) for run in board.unscored} == {
        ("crashed", "failed"),
        ("young", "finished"),
    }
    text = printed(board)
    assert "2 runs without a score" in text
    assert [entry.state for entry in board.groups[0].entries if entry.kind == "run"] == ["failed"]


def test_a_merged_pair_stands_beside_single_trunks_and_says_with_what(recorded):
    run = recorded.run("one")
    recorded.evaluation(run, 1, 60.0)
    other = {"checkpoint": "moco.safetensors", "weights_sha256": "0123abcdef", "weight_of_first": 1.05}
    recorded.evaluation(run, 1, 70.0, preset="hvc-merged-0123abc", merged=other)
    (group,) = board_at(recorded).groups
    rows = [(e.scores["jf_mean"], e.remark) for e in group.entries if e.kind == "run"]
    assert rows == [(70.0, "merged with moco.safetensors (0123abc), weight 1.05"), (60.0, "")]


def test_a_baseline_has_the_name_of_what_it_is(recorded):
    recorded.evaluation(recorded.run("x", hvc_baseline="baseline:untrained/seed-3"), 0, 20.0)
    (entry,) = [entry for entry in board_at(recorded).groups[0].entries if entry.kind != "published"]
    assert (entry.kind, entry.name) == ("baseline", "baseline:untrained/seed-3")


def test_scores_whose_report_is_gone_are_not_compared_with_others(recorded, folder):
    gone, there = recorded.run("gone"), recorded.run("there")
    recorded.evaluation(there, 1, 60.0)
    recorded.evaluation(gone, 1, 61.0, noted=False)
    for report in folder.rglob(f"{gone}/**/scores.json"):
        report.unlink()
    groups = {group.digest: group for group in board_at(recorded).groups}
    assert names(groups[UNKNOWN]) == ["gone"]
    assert groups[UNKNOWN].entries[0].scores == {"jf_mean": 61.0, "j_mean": 59.0, "f_mean": 63.0}
    assert names(groups["d" * 64]) == ["there"]


def test_another_experiment_and_all_of_them(recorded):
    recorded.evaluation(recorded.run("here"), 1, 60.0)
    other = Recorded(recorded.uri, "other")
    other.evaluation(other.run("there"), 1, 61.0)
    assert names(board_at(recorded).groups[0]) == ["here"]
    everything, _ = collect(recorded.client, recorded.uri, None)
    assert {"here", "there"} <= {one.entry.name for one in everything}
    with pytest.raises(UsageError, match="other"):
        board_at(recorded, "nowhere")


@pytest.mark.services
def test_a_server_gives_reports_and_pictures_and_says_what_is_gone(mlflow_server, tmp_path):
    recorded = Recorded(mlflow_server.uri, "leaderboard")
    strip = tmp_path / "video-00.png"
    strip.write_bytes(b"a picture")
    run = recorded.run("served")
    recorded.evaluation(run, 7, 60.0, pictures=[strip])
    (group,) = board_at(recorded).groups
    (entry,) = [entry for entry in group.entries if entry.kind == "run"]
    assert (group.digest, entry.step) == ("d" * 64, 7)
    fetch = pictures_from(recorded.client, recorded.uri)
    (picture,) = entry.pictures
    assert fetch(picture) == b"a picture"
    assert fetch(type(picture)(run, picture.root, "eval/nowhere.png", "nowhere.png")) is None


@pytest.mark.services
def test_a_server_that_dies_is_an_error_in_words(private_mlflow_server):
    server = private_mlflow_server()
    recorded = Recorded(server.uri)
    server.kill()
    with pytest.raises(HvcError, match="stopped answering"):
        board_at(recorded)


def test_csv_has_every_row_once_and_no_formula():
    board = board_of(
        [measured("=1+1", 60.0), measured("plain, with a comma", 61.0, preset="custom-1")],
        [Unscored("@crashed", "1234", "hvc", "failed", 0.0)],
    )
    rows = list(csv.DictReader(io.StringIO(csv_text(board))))
    assert len(rows) == sum(len(group.entries) for group in board.groups) + 1
    by_name = {row["name"]: row for row in rows}
    assert by_name["'=1+1"]["jf_mean"] == "60.0"
    assert by_name["plain, with a comma"]["preset"] == "custom-1"
    assert (by_name["'@crashed"]["kind"], by_name["'@crashed"]["state"]) == ("unscored", "failed")
    assert all(None not in row and None not in row.values() for row in rows)


def test_the_terminal_shows_brackets_as_they_are_and_says_what_it_leaves_out():
    board = board_of([measured(f"[red]{n}[/red]", float(n)) for n in range(40)], [], published=False)
    text = printed(board, limit=5, every=False)
    assert "[red]39[/red]" in text
    assert "[red]34[/red]" not in text
    assert "35 more" in text
    assert "DINOv3" not in text
    assert "hvc leaderboard davis2017" in text
    assert "DINOv3 L" in printed(board)


def test_tables_that_must_not_be_compared_say_so():
    one = board_of([measured("a", 60.0, sequences=4)], [], published=False)
    two = board_of([measured("a", 60.0), measured("b", 60.0, digest="e")], [], published=False)
    words = "no number of one is to be compared"
    assert words not in printed(board_of([measured("a", 60.0)], [], published=False))
    assert words in printed(two)
    assert "4 of 30 sequences" in printed(one)


def test_a_thousand_runs_are_quick():
    many = [measured(f"run-{n}", n / 10, preset=f"p{n % 7}") for n in range(1000)]
    start = time.perf_counter()
    board = board_of(many, [Unscored(f"u{n}", "1", "hvc", "failed", 0.0) for n in range(1000)])
    printed(board)
    csv_text(board)
    assert time.perf_counter() - start < 5


def test_the_command_writes_all_three(recorded, tmp_path):
    recorded.evaluation(recorded.run("one"), 1, math.nan, benchmark="folder-clip", count=1)
    done = run_hvc(
        *("leaderboard", "folder-clip", "--tracking-uri", recorded.uri, "--experiment", recorded.name),
        *("--csv", "b.csv", "--html", "b.html", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (group,) = json.loads(done.stdout, parse_constant=pytest.fail)["groups"]  # NaN is no JSON
    assert (group["benchmark"], group["entries"][0]["name"]) == ("folder-clip", "one")
    assert group["entries"][0]["scores"]["jf_mean"] is None
    assert "one" in (tmp_path / "b.csv").read_text()
    assert "<!doctype html>" in (tmp_path / "b.html").read_text()
    wrong = run_hvc("leaderboard", "nothing", "--all", "--tracking-uri", recorded.uri, cwd=tmp_path)
    assert wrong.returncode == 2
    assert "there are: davis2016" in wrong.stderr


def test_nothing_recorded_is_said_and_nothing_is_made(tmp_path):
    done = run_hvc("leaderboard", cwd=tmp_path)
    assert done.returncode == 1
    assert "nothing is recorded" in done.stderr
    assert not list(tmp_path.iterdir())
