"""The README's tour does what it says: its commands are run as they stand there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import clean_env

from hvc.demo.clip import make_clip
from hvc.demo.photos import collect_photos

ROOT = Path(__file__).resolve().parents[1]


def documented_commands() -> list[str]:
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"<!-- tested -->\n```sh\n(.*?)```", text, re.DOTALL)
    return [line for line in block.splitlines() if line and not line.startswith(("#", ". "))]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tour(tmp_path):
    collect_photos(tmp_path / "demo-output" / "photos", count=40)
    make_clip(tmp_path / "demo-output" / "clip", frames=6)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    env = clean_env()
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    words = {}
    for command in documented_commands():
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        if not command.startswith("hvc doctor"):  # a machine may have something to mend
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        words[" ".join(command.split()[1:3])] = done
    assert "40 found = 40 samples + 0 rejected" in words["shard folder"].stdout
    assert "outcome: done" in words["train configs/tour.yaml"].stdout
    assert "step: 20" in words["evaluate models:/hvc@newest"].stdout
    assert "scores.jf_mean" in words["evaluate baseline:untrained"].stdout
    assert "tour" in words["runs"].stdout
    assert "finished" in words["runs"].stdout
    assert (tmp_path / "outputs" / "trunk.safetensors").exists()
    assert "#SBATCH --nodes=4" in words["submit train"].stdout
    assert "disk" in words["doctor"].stdout.lower()
    assert not (tmp_path / "slurm-jobs").exists()


def test_every_documented_config_is_valid():
    from hvc.pretrain.recipe import TrainConfig
    from hvc.slurm.cluster import ClusterConfig
    from hvc.slurm.pipeline_config import PipelineConfig

    pipeline = ROOT / "configs" / "pipeline.yaml"
    assert PipelineConfig.load(pipeline).name
    recipes = sorted(set((ROOT / "configs").glob("*.yaml")) - {pipeline})
    assert {"imagenet.yaml", "coco.yaml", "youtube-vos.yaml", "small.yaml", "tour.yaml"} | {
        f"paper-{name}.yaml" for name in ("coco", "voc", "msra10k", "youtube-vos")
    } <= {p.name for p in recipes}
    for path in recipes:
        assert TrainConfig.load(path).name == path.stem
    for path in sorted((ROOT / "configs" / "clusters").glob("*.yaml")):
        assert ClusterConfig.load(path).name
