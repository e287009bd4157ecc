"""Listing: the same images in the same order on every machine."""

import os

import pytest

from hvc.base.errors import HvcError, UsageError
from hvc.data_prep.sources import list_folder, list_imagenet


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")


def test_all_images_at_any_depth_sorted(tmp_path):
    touch(
        tmp_path,
        "b.JPEG",
        "a/z.png",
        "a/b/c.WebP",
        "a.bmp",
        "B.tif",
        "é.jpg",
        ".hidden.jpg",
        "notes.txt",
        "jpg",
    )
    listing = list_folder(tmp_path)
    paths = [item.path for item in listing.items]
    assert paths == sorted(["b.JPEG", "a/z.png", "a/b/c.WebP", "a.bmp", "B.tif", "é.jpg", ".hidden.jpg"])
    assert {item.label for item in listing.items} == {None}
    assert {item.size for item in listing.items} == {5}


def test_links_are_followed_but_not_round_and_round(tmp_path):
    touch(tmp_path / "in", "a/x.jpg")
    touch(tmp_path / "elsewhere", "y.jpg")
    (tmp_path / "in/a/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "in/file.jpg").symlink_to(tmp_path / "elsewhere/y.jpg")
    paths = [item.path for item in list_folder(tmp_path / "in").items]
    assert paths == ["a/x.jpg", "file.jpg", "gone.jpg", "linked/y.jpg"]


def test_a_name_that_is_not_text_does_no_harm(tmp_path):
    touch(tmp_path, os.fsdecode(b"caf\xe9.jpg"), "a.jpg")
    assert len(list_folder(tmp_path).items) == 2
    assert len(list_folder(tmp_path).digest()) == 64


def test_imagenet_labels_are_positions_of_sorted_classes(tmp_path):
    touch(
        tmp_path,
        "n02/x.JPEG",
        "n00000009/a.JPEG",
        "n00000001/b.JPEG",
        "n00000001/c.JPEG",
        "n00000005/d.JPEG",
    )
    listing = list_imagenet(tmp_path)
    assert listing.classes == ("n00000001", "n00000005", "n00000009")
    assert [(item.path, item.label) for item in listing.items] == [
        ("n00000001/b.JPEG", 0),
        ("n00000001/c.JPEG", 0),
        ("n00000005/d.JPEG", 1),
        ("n00000009/a.JPEG", 2),
    ]


def test_the_digest_notices_names_sizes_and_labels(tmp_path):
    touch(tmp_path, "n00000001/a.jpg", "n00000002/b.jpg")
    digests = {list_folder(tmp_path).digest(), list_imagenet(tmp_path).digest()}
    touch(tmp_path, "n00000002/c.jpg")
    digests.add(list_folder(tmp_path).digest())
    (tmp_path / "n00000002/c.jpg").write_bytes(b"longer")
    digests.add(list_folder(tmp_path).digest())
    assert len(digests) == 4


@pytest.mark.parametrize("lister", [list_folder, list_imagenet])
def test_a_missing_folder_is_a_usage_error(tmp_path, lister):
    with pytest.raises(UsageError, match="no such folder"):
        lister(tmp_path / "missing")
    touch(tmp_path, "file")
    with pytest.raises(UsageError, match="not a folder"):
        lister(tmp_path / "file")


def test_an_empty_folder_says_what_was_expected(tmp_path):
    with pytest.raises(HvcError, match=r"no images below .*\.jpeg"):
        list_folder(tmp_path)
    with pytest.raises(HvcError, match=r"no ImageNet class folders in .*n01440764"):
        list_imagenet(tmp_path)
    (tmp_path / "n00000001").mkdir()
    with pytest.raises(HvcError, match="no images in the 1 class folders"):
        list_imagenet(tmp_path)
