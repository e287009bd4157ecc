"""`hvc check-results` as a person meets it."""

import json

import numpy as np
from evaluation_layouts import davis2017, youtube_vos
from running import hvc_json, run_hvc

from hvc.evaluation.layouts.benchmarks import BENCHMARKS
from hvc.evaluation.layouts.masks import write_mask
from hvc.evaluation.layouts.submission import package_results


def test_a_good_zip_and_a_bad_folder(tmp_path):
    sequences = BENCHMARKS["youtube-vos-2018"].read(youtube_vos(tmp_path / "data"), None)
    labels = tmp_path / "out" / "labels"
    for index in sequences[0].results:
        stem = sequences[0].frames[index].stem
        write_mask(labels / sequences[0].name / f"{stem}.png", np.zeros((72, 96), np.uint8))
    package_results("youtube-vos-2018", labels, sequences)
    done = run_hvc(
        "check-results", "youtube-vos-2018", "out/youtube-vos-2018.zip", "data", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"ok": True, "files": 3, "sequences": 1}

    (labels / sequences[0].name / "00005.png").unlink()
    done = run_hvc("check-results", "youtube-vos-2018", "out/labels", "data", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 files are missing: 0a49f5265b/00005.png" in done.stderr
    assert "Traceback" not in done.stderr


def test_some_sequences_are_checked_and_others_results_are_nobodys_business(tmp_path):
    root = davis2017(tmp_path / "data", "gym", "lock", annotated=1)
    for index in range(4):
        write_mask(tmp_path / "out" / "gym" / f"{index:05d}.png", np.zeros((72, 96), np.uint8))
    write_mask(tmp_path / "out" / "lock" / "00000.png", np.zeros((72, 96), np.uint8))
    words = ("check-results", "davis2017-test-dev", "out", str(root))
    found = hvc_json(*words, "--sequences", "gym", cwd=tmp_path)
    assert found == {"ok": True, "files": 4, "sequences": 1}
    assert "3 files are missing: lock/00001.png" in run_hvc(*words, cwd=tmp_path).stderr
    write_mask(tmp_path / "out" / "gym" / "00004.png", np.zeros((72, 96), np.uint8))
    done = run_hvc(*words, "--sequences", "gym", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 files belong to no frame: gym/00004.png" in done.stderr
    assert (
        "no sequence swan; it has: gym, lock" in run_hvc(*words, "--sequences", "swan", cwd=tmp_path).stderr
    )


def test_data_of_another_benchmark(tmp_path):
    davis2017(tmp_path / "data", "blackswan")
    done = run_hvc("check-results", "vip", "data", "data", cwd=tmp_path)
    assert done.returncode == 1
    assert "is not a VIP folder: expected" in done.stderr
    assert "laid out like DAVIS" in done.stderr
