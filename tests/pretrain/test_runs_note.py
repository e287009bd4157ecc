"""The note on a run's page: what it says, and that its pictures are where it says."""

import html
import re
import urllib.request

import pytest
from PIL import Image
from training_data import numbered, write_dataset

from hvc.pretrain.data.dataset import load_data
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.tracking.mlflow_client import connect, experiment_id
from hvc.pretrain.tracking.runs_note import NOTE_TAG, Saved, run_note

PICTURES = ["pictures/curves-00000200.png", "pictures/features-00000200.png"]
SAVED = Saved(200, "s3://bucket/with `ticks`/step-00000200", "ab" * 32)


@pytest.fixture
def recipe(tmp_path):
    write_dataset(tmp_path / "set", [numbered(number) for number in range(5)], 5, name="a_b*c<img>")
    return TrainConfig.parse({"data": str(tmp_path / "set"), "output": f"{tmp_path}/my run", "name": "r"})


def test_what_is_looked_for_most_comes_before_the_fold(recipe):
    data = load_data(recipe)
    lines = run_note(recipe, data, "7", "0f" * 16, 12_000, SAVED, PICTURES).splitlines()
    assert "**resnet18**" in lines[0]
    assert "5 images" in lines[0]
    assert "12,000 steps" in lines[0]
    page = f"#/experiments/7/runs/{'0f' * 16}/artifacts"
    assert f"[curves]({page}/pictures/curves-00000200.png)" in lines[1]
    assert f"[recipe.yaml]({page}/recipe.yaml)" in lines[1]
    assert "step 200" in lines[2]
    assert "`s3://bucket/with 'ticks'/step-00000200`" in lines[2]
    assert "abababababab" in lines[2]
    note = "\n".join(lines)
    assert f"hvc train '{recipe.folder}/recipe.yaml'" in note
    assert f"hvc evaluate runs:/{'0f' * 16}@200 " in note
    assert note.index("![curves]") < note.index("![features]")
    assert data.digest[:12] in note


def test_a_name_is_neither_markdown_nor_html(recipe):
    note = run_note(recipe, load_data(recipe), "7", "0f" * 16, 10)
    assert r"**a\_b\*c\<img\>**" in note
    assert "none yet" in note
    assert "hvc evaluate" not in note
    assert "![" not in note


@pytest.mark.slow
def test_a_server_shows_the_pictures_that_the_note_names(recipe, tmp_path, mlflow_server):
    client = connect(mlflow_server.uri)
    where = experiment_id(client, "noted", mlflow_server.uri)
    run_id = client.create_run(where).info.run_id
    picture = tmp_path / PICTURES[0].rpartition("/")[2]
    Image.new("RGB", (30, 20), "red").save(picture)
    client.log_artifact(run_id, str(picture), "pictures")
    client.set_tag(
        run_id, NOTE_TAG, run_note(recipe, load_data(recipe), where, run_id, 10, SAVED, PICTURES[:1])
    )
    note = client.get_run(run_id).data.tags[NOTE_TAG]
    (address,) = re.findall(r"!\[curves\]\((.*?)\)", note)
    with urllib.request.urlopen(f"{mlflow_server.uri}/{html.unescape(address)}", timeout=20) as answer:
        assert answer.read() == picture.read_bytes()
