"""Sequences over real processes: failures and kills cost their sequence only, a stop ends all soon."""

import json
import os
import signal
import time

import mlflow
import psutil
import pytest
from evaluation_video import make_video
from running import hvc_json, run_hvc, start_hvc

pytestmark = pytest.mark.slow
OPTIONS = ("protocol.input_size=64", "protocol.context=3")


@pytest.fixture
def clips(tmp_path):
    """Three short clips and one that takes a while."""
    for name in ("a", "b", "c"):
        make_video(frames=5).write(tmp_path / "clips" / name)
    long = make_video(frames=6)
    folder = long.write(tmp_path / "clips" / "long")
    for number in range(6, 240):
        os.link(folder / "frames" / "00005.jpg", folder / "frames" / f"{number:05d}.jpg")
        os.link(folder / "masks" / "00005.png", folder / "masks" / f"{number:05d}.png")
    return tmp_path / "clips"


def command(*more):
    return ("evaluate", "baseline:pixels", "folder", "clips", *OPTIONS, *more)


def start(tmp_path, *more, log="log"):
    return start_hvc(*command(*more), "--json", cwd=tmp_path, log=tmp_path / log)


def wait_for(pattern, tmp_path, process):
    end = time.monotonic() + 90
    while not list(tmp_path.glob(pattern)):
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < end
        time.sleep(0.02)


def records(tmp_path):
    return {path.stem: path for path in tmp_path.glob("outputs/eval/folder/*/sequences/*.json")}


LONG_BEGUN = "outputs/eval/folder/*/labels/long/00003.png"


def worker_on_long(process):
    """The child whose lock file is that of the long clip."""
    for child in psutil.Process(process.pid).children():
        if any(file.path.endswith("long.lock") for file in child.open_files()):
            return child
    raise AssertionError("nobody is at work on it")


def test_a_killed_process_takes_its_sequence_and_no_other(clips, tmp_path):
    process = start(tmp_path, "workers=2")
    wait_for(LONG_BEGUN, tmp_path, process)
    worker_on_long(process).kill()
    assert process.wait(120) == 1
    words = (tmp_path / "log").read_text()
    assert "sequence long: its process was ended by SIGKILL" in words
    assert "3 other sequences are done and kept" in words
    assert "Traceback" not in words
    stamps = {name: path.stat().st_mtime_ns for name, path in records(tmp_path).items()}
    assert stamps.keys() == {"a", "b", "c"}
    report = hvc_json(*command("workers=2"), cwd=tmp_path)
    assert report["sequences"] == 4
    assert {name: records(tmp_path)[name].stat().st_mtime_ns for name in stamps} == stamps


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_ends_all_of_it_in_time_and_it_goes_on(clips, tmp_path, workers):
    process = start(tmp_path, f"workers={workers}")
    wait_for(LONG_BEGUN, tmp_path, process)
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75, (tmp_path / "log").read_text()
    assert time.monotonic() - begin < 10
    assert json.loads((tmp_path / "log").read_text())["outcome"] == "stopped"
    assert "long" not in records(tmp_path)
    assert hvc_json(*command("workers=1"), cwd=tmp_path)["frames"] == 255


def test_a_killed_evaluation_leaves_nobody_and_what_it_did(clips, tmp_path):
    process = start(tmp_path, "workers=2")
    wait_for(LONG_BEGUN, tmp_path, process)
    children = psutil.Process(process.pid).children()
    assert len(children) == 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    kept = {name: path.stat().st_mtime_ns for name, path in records(tmp_path).items()}
    assert "long" not in kept
    report = hvc_json(*command("workers=1"), cwd=tmp_path)
    assert report["sequences"] == 4
    assert {name: records(tmp_path)[name].stat().st_mtime_ns for name in kept} == kept


def test_two_at_once_share_the_work_and_agree(clips, tmp_path):
    processes = [start(tmp_path, "workers=1", log=f"log-{number}") for number in range(2)]
    assert [process.wait(240) for process in processes] == [0, 0]
    logs = [(tmp_path / f"log-{number}").read_text() for number in range(2)]
    first, second = (json.loads(text[text.index("{\n") :]) for text in logs)
    assert first == second
    assert first["sequences"] == 4
    client = mlflow.MlflowClient(first["tracking_uri"])
    (run,) = client.search_runs([client.get_experiment_by_name("hvc").experiment_id])
    assert len(client.get_metric_history(run.info.run_id, f"{first['metrics']}/jf_mean")) == 1


def test_the_other_one_takes_over_when_the_first_is_killed(clips, tmp_path):
    first = start(tmp_path, "workers=1")
    wait_for(LONG_BEGUN, tmp_path, first)
    first.send_signal(signal.SIGSTOP)
    second = start(tmp_path, "workers=1", log="second")
    end = time.monotonic() + 90
    while "is at work on long: waiting" not in (tmp_path / "second").read_text():
        assert second.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    first.kill()
    assert second.wait(240) == 0, (tmp_path / "second").read_text()
    assert records(tmp_path).keys() == {"a", "b", "c", "long"}


def test_a_sequence_that_fails_is_named_and_others_are_kept(clips, tmp_path):
    damaged = clips / "b" / "frames" / "00003.jpg"
    whole = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(whole[: len(whole) // 2])  # its header is good, so it is found when decoded
    (clips / "long").rename(tmp_path / "elsewhere")
    done = run_hvc(*command("workers=2"), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("00003.jpg") == 1, "the reason is said in the end"
    assert "sequence b failed; the others go on" in done.stderr
    assert "2 other sequences are done and kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert records(tmp_path).keys() == {"a", "c"}


def test_parts_share_and_the_command_without_part_scores(clips, tmp_path):
    (clips / "long").rename(tmp_path / "elsewhere")
    shares = [hvc_json(*command(), "--parts", "2", "--part", str(part), cwd=tmp_path) for part in (0, 1)]
    assert [share["sequences"] for share in shares] == [2, 1]
    assert "scores" not in shares[0]
    stamps = {name: path.stat().st_mtime_ns for name, path in records(tmp_path).items()}
    assert len(stamps) == 3
    report = hvc_json(*command(), "--parts", "2", cwd=tmp_path)
    assert report["scores"]["jf_mean"] > 0
    assert {name: path.stat().st_mtime_ns for name, path in records(tmp_path).items()} == stamps
    whole = hvc_json(*command(), "--output", "another", cwd=tmp_path)
    assert whole["scores"] == report["scores"]
    bad = run_hvc(*command(), "--part", "1", cwd=tmp_path)
    assert bad.returncode == 2
    assert "part 1 of 1" in bad.stderr
