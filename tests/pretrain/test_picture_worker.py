"""The end of a run while a picture is drawn: it is waited for, those behind it are not."""

import subprocess
import sys

import pytest
from running import clean_env

PROGRAM = """
import pathlib, sys, threading
import torch
from PIL import Image
from hvc.pretrain.tracking.picture_worker import PictureWorker

begun = threading.Event()

def render():
    begun.set()
    for _ in range(60):
        torch.nn.functional.conv2d(torch.randn(4, 64, 96, 96), torch.randn(64, 64, 3, 3))
    return Image.new("RGB", (4, 4))

folder = pathlib.Path(sys.argv[1])
worker = PictureWorker(lambda name, step, path: None)
for step in range(50):
    worker.draw("slow", step, folder / f"{step}.png", render)
begun.wait()
print(worker.finish(0.0))
sys.exit(75)
"""


@pytest.mark.slow
def test_a_picture_that_is_drawn_at_the_end_does_not_abort_the_process(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=clean_env()
    )
    assert done.returncode == 75, done.stderr
    assert int(done.stdout) >= 48
    drawn = [path.name for path in tmp_path.iterdir()]
    assert "0.png" in drawn
    assert len(drawn) < 5
