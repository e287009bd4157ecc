"""Every data set in its true layout: which images there are, in which order, and what travels along."""

import layout_data as data
import pytest

from hvc.base.errors import HvcError
from hvc.data_prep.catalog import Catalog
from hvc.data_prep.sources import build_catalog

KINDS = pytest.mark.parametrize("kind", ["folder", "zip", "tar"])


def records(catalog):
    return [catalog.record(i) for i in range(len(catalog))]


def paths(catalog):
    return [record.path for record in records(catalog)]


def images(catalog):
    return {record.path: catalog.trees[record.input].read(record.entry) for record in records(catalog)}


def extras(catalog):
    """{path: {extension: content}} of records that have any."""
    return {
        record.path: {e.ext: e.content(catalog.trees[record.input]) for e in record.extras}
        for record in records(catalog)
        if record.extras
    }


def catalog_of(source, address, *wanted) -> Catalog:
    return build_catalog([(source, address)], frozenset(wanted))


# --- any folder


@KINDS
def test_all_images_at_any_depth_and_no_junk(tmp_path, kind):
    good = ["b.JPEG", "a/z.png", "a/b/c.WebP", "a.bmp", "B.tif", "é.jpg", ".hidden.jpg", "x.tar.jpg"]
    junk = ["notes.txt", "jpg", "__MACOSX/a/._z.jpg", "a/._z.png", ".DS_Store", "a/b.jpg.part", ".jpg"]
    address = data.contained(kind, tmp_path / "in", {name: name.encode() for name in good + junk})
    catalog = catalog_of("folder", address)
    assert paths(catalog) == sorted(good)
    assert images(catalog) == {name: name.encode() for name in good}
    assert catalog.classes == ()
    assert catalog.sizes.tolist() == [len(name.encode()) for name in sorted(good)]


def test_labels_are_the_folders_images_lie_in(tmp_path):
    names = ["dog/a.jpg", "cat/b.jpg", "x/cat/c.jpg", "top.jpg"]
    catalog = catalog_of("folder", data.write_folder(tmp_path, dict.fromkeys(names, b"x")), "labels")
    assert catalog.classes == ("cat", "dog")
    assert {record.path: record.label for record in records(catalog)} == {
        "cat/b.jpg": "cat",
        "dog/a.jpg": "dog",
        "top.jpg": None,
        "x/cat/c.jpg": "cat",
    }
    assert [catalog.label_number(i) for i in range(4)] == [0, 1, None, 0]


@KINDS
def test_captions_and_masks_that_lie_beside(tmp_path, kind):
    names = [
        "a/1.jpg",
        "a/1.txt",
        "a/1.png",
        "a/2.jpg",
        "a/2_mask.png",
        "a/2.caption",
        "a/10.png",
        "a/10.mask.png",
    ]
    address = data.contained(kind, tmp_path / "in", {name: name.encode() for name in names})
    catalog = catalog_of("folder", address, "captions", "masks")
    assert paths(catalog) == ["a/1.jpg", "a/10.png", "a/2.jpg"]
    assert extras(catalog) == {
        "a/1.jpg": {"txt": b"a/1.txt", "mask.png": b"a/1.png"},
        "a/10.png": {"mask.png": b"a/10.mask.png"},
        "a/2.jpg": {"txt": b"a/2.caption", "mask.png": b"a/2_mask.png"},
    }
    assert "a/1.png" in paths(catalog_of("folder", address, "captions"))  # no mask unless asked for


def test_what_is_asked_for_and_not_there_is_said(tmp_path):
    address = data.write_folder(tmp_path, {"a.jpg": b"x"})
    for kind in ("captions", "masks", "labels"):
        with pytest.raises(HvcError, match=f"no {kind} found beside any image"):
            catalog_of("folder", address, kind)


# --- ImageNet


@pytest.mark.shared
@pytest.mark.parametrize("form", ["folder", "zip", "tar", "tar of tars", "folder of tars", "CLS-LOC"])
def test_imagenet_train_in_every_form(shared, tmp_path, form):
    files = data.imagenet_files(shared, 12)
    tops = {}
    for name, image in files.items():
        tops.setdefault(name.partition("/")[0] + ".tar", {})[name.partition("/")[2]] = image
    tars = {name: data.tar_bytes(members) for name, members in tops.items()}
    top = ""
    if form == "tar of tars":
        address = data.write_tar(tmp_path / "ILSVRC2012_img_train.tar", tars)
    elif form == "folder of tars":
        address = data.write_folder(tmp_path / "train", {**tars, "ILSVRC2012_img_val.tar": b"no matter"})
    elif form == "CLS-LOC":
        top = "train/"
        others = {"val/ILSVRC2012_val_00000001.JPEG": b"x", "test/ILSVRC2012_test_00000001.JPEG": b"x"}
        address = data.write_folder(tmp_path / form, others | {top + name: i for name, i in files.items()})
    else:
        address = data.contained(form, tmp_path / "train", files)
    catalog = catalog_of("imagenet", address)
    assert images(catalog) == {top + name: image for name, image in files.items()}
    assert paths(catalog) == sorted(top + name for name in files)
    assert catalog.classes == tuple(sorted({name.partition("/")[0] for name in files}))
    assert all(f"{record.label}/" in record.path for record in records(catalog))


def test_the_same_imagenet_is_the_same_catalog_whatever_holds_it(tmp_path):
    files = {f"n0000000{c}/n0000000{c}_{i}.JPEG": b"x" * i for c in range(3) for i in range(5)}
    addresses = [data.contained(kind, tmp_path / "in", files) for kind in ("folder", "zip", "tar")]
    assert len({catalog_of("imagenet", address).digest() for address in addresses}) == 1


def test_flat_validation_images_need_no_labels(tmp_path):
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in (2, 1, 3)]
    catalog = catalog_of("imagenet", data.write_tar(tmp_path / "val.tar", dict.fromkeys(names, b"x")))
    assert paths(catalog) == sorted(names)
    assert catalog.classes == ()


def test_imagenet_that_is_none_says_what_was_expected(tmp_path):
    address = data.write_folder(tmp_path / "a", {"cats/1.jpg": b"x", "n123/x.jpg": b"x"})
    with pytest.raises(HvcError, match=r"no ImageNet class folders .*n01440764.*source `folder`"):
        catalog_of("imagenet", address)
    both = {f"{split}/n00000001/x.JPEG": b"x" for split in ("train", "val")}
    with pytest.raises(HvcError, match="class folders in train and in val; point to the one"):
        catalog_of("imagenet", data.write_folder(tmp_path / "b", both))


# --- COCO


def coco_files(shared, splits):
    names = iter(range(1, 1000))
    return {
        f"{split}/{next(names):012d}.jpg": photo for split in splits for photo in data.photos(shared, 4)
    } | {"annotations/instances_train2017.json": b"{}"}


@pytest.mark.shared
@KINDS
def test_coco_one_split_or_the_root(shared, tmp_path, kind):
    files = coco_files(shared, ["train2017", "unlabeled2017", "val2017", "test2017"])
    of = {
        split: {name: image for name, image in files.items() if name.startswith(split)}
        for split in ("train2017", "unlabeled2017", "val2017")
    }
    root = catalog_of("coco", data.contained(kind, tmp_path / "coco", files))
    assert images(root) == of["train2017"] | of["unlabeled2017"]
    assert paths(root) == sorted(paths(root))
    alone = catalog_of("coco", data.contained(kind, tmp_path / "val2017", of["val2017"]))
    assert images(alone) == of["val2017"]


@pytest.mark.shared
def test_coco_pointing_into_a_split(shared, tmp_path):
    files = coco_files(shared, ["train2017", "val2017"])
    data.write_folder(tmp_path, files)
    catalog = catalog_of("coco", str(tmp_path / "train2017"))
    assert paths(catalog) == [f"{i:012d}.jpg" for i in range(1, 5)]


@pytest.mark.shared
@pytest.mark.parametrize("form", ["root", "split", "split/", "zip", "root zip"])
def test_coco_captions(shared, tmp_path, form, monkeypatch):
    splits = ["train2017", "unlabeled2017"] if form.startswith("root") else ["train2017"]
    files = coco_files(shared, splits)
    names = [f"{i:012d}.jpg" for i in range(1, 4)]  # the fourth has no caption
    captions = {"annotations/captions_train2017.json": data.captions_json(names)}
    if form == "zip":
        data.write_folder(tmp_path, captions)
        monkeypatch.chdir(tmp_path)
        data.write_zip(tmp_path / "train2017.zip", files)
        address = "train2017.zip"
    elif form == "root zip":
        address = data.write_zip(tmp_path / "coco.zip", files | captions)
    else:
        root = data.write_folder(tmp_path, files | captions)
        address = root if form == "root" else f"{root}/{form.replace('split', 'train2017')}"
    top = "" if form.startswith("split") else "train2017/"
    catalog = catalog_of("coco", address, "captions")
    assert len(catalog) == 4 * len(splits)
    assert extras(catalog) == {
        top + name: {"txt": "\n".join(f"Caption {j} of {name}." for j in (4, 3, 2, 1, 0)).encode()}
        for name in names
    }


def test_coco_without_caption_file_names_the_path(tmp_path):
    address = data.write_folder(tmp_path / "coco/train2017", {"000000000009.jpg": b"x"})
    with pytest.raises(HvcError, match=r"looked for .*coco/annotations/captions_train2017\.json"):
        catalog_of("coco", address, "captions")
    data.put(tmp_path / "coco/annotations/captions_train2017.json", b'{"images": 3}')
    with pytest.raises(HvcError, match=r"captions_train2017\.json is no COCO caption file"):
        catalog_of("coco", address, "captions")


def test_coco_that_is_none_or_ambiguous(tmp_path):
    with pytest.raises(HvcError, match=r"no COCO images .*train2017/000000000009\.jpg.*`folder`"):
        catalog_of("coco", data.write_folder(tmp_path / "a", {"cat/x.jpg": b"x"}))
    several = {f"{split}/000000000009.jpg": b"x" for split in ("val2017", "test2017")}
    with pytest.raises(HvcError, match="holds test2017/, val2017/: point to the one"):
        catalog_of("coco", data.write_folder(tmp_path / "b", several))


@pytest.mark.parametrize("source", ["coco", "youtube-vos", "davis"])
def test_archives_that_lie_where_nothing_is_found_are_named(tmp_path, source):
    address = data.write_folder(tmp_path / "in", {"train2017.zip": b"x", "test.tar": b"x", "x.txt": b"x"})
    with pytest.raises(HvcError, match=r"give the archives there .*: test\.tar, train2017\.zip"):
        catalog_of(source, address)


# --- videos as folders of frames


@pytest.mark.shared
@KINDS
@pytest.mark.parametrize("top", ["train_all_frames/", "train/", "valid/", ""])
def test_youtube_vos_splits(shared, tmp_path, kind, top):
    files = data.below(shared / "data/youtube_vos", top) | {f"{top}meta.json": b"{}"}
    catalog = catalog_of("youtube-vos", data.contained(kind, tmp_path / "yt", files), "masks")
    found = records(catalog)
    frames = [name for name in files if "JPEGImages" in name]
    assert [record.path for record in found] == sorted(frames)
    assert images(catalog) == {name: files[name] for name in frames}
    assert [(r.video, r.frame) for r in found] == [
        (n.split("/")[-2], int(n[-9:-4])) for n in sorted(frames)
    ]
    assert catalog.group_ids.tolist() == sorted(catalog.group_ids.tolist())
    assert catalog.video_name(0) == "19904980af"
    masks = {name: image for name, image in files.items() if "Annotations" in name}
    assert len(masks) == 2
    assert extras(catalog) == {
        name.replace("Annotations", "JPEGImages").replace("png", "jpg"): {"mask.png": mask}
        for name, mask in masks.items()
    }


@pytest.mark.shared
def test_youtube_vos_pointing_at_its_images(shared):
    inside = str(shared / "data/youtube_vos/JPEGImages")
    catalog = catalog_of("youtube-vos", inside)
    assert len(catalog) == 48
    assert catalog.record(0).video == "19904980af"
    with pytest.raises(HvcError, match="point to the folder that holds JPEGImages and Annotations"):
        catalog_of("youtube-vos", inside, "masks")


def test_youtube_vos_that_is_several_or_none(tmp_path):
    several = {f"{split}/JPEGImages/v/00000.jpg": b"x" for split in ("train", "valid")}
    with pytest.raises(HvcError, match="holds several splits: train/JPEGImages, valid/JPEGImages"):
        catalog_of("youtube-vos", data.write_folder(tmp_path / "a", several))
    with pytest.raises(HvcError, match=r"no frames in .*expected names like JPEGImages/"):
        catalog_of("youtube-vos", data.write_folder(tmp_path / "b", {"x.jpg": b"x"}))
    with pytest.raises(HvcError, match=r"v/cat\.jpg is not named by its number; use the source `frames`"):
        catalog_of("youtube-vos", data.write_folder(tmp_path / "c", {"v/cat.jpg": b"x"}))


def test_frames_are_in_order_of_their_numbers(tmp_path):
    names = [f"JPEGImages/v/{i}.jpg" for i in (10, 9, 100, 1)] + [
        "JPEGImages/u-1/5.jpg",
        "JPEGImages/u/6.jpg",
    ]
    catalog = catalog_of("youtube-vos", data.write_folder(tmp_path, dict.fromkeys(names, b"x")))
    assert [record.frame for record in records(catalog)] == [6, 5, 1, 9, 10, 100]
    assert [record.video for record in records(catalog)] == ["u", "u-1", "v", "v", "v", "v"]
    assert catalog.group_ids.tolist() == [0, 1, 2, 2, 2, 2]


@pytest.mark.shared
@KINDS
def test_davis_with_masks(shared, tmp_path, kind):
    files = {
        name: image
        for name, image in data.below(shared / "data/davis2016", "DAVIS/").items()
        if "libby" in name or "blackswan/0000" in name
    }
    files["DAVIS/ImageSets/2017/val.txt"] = b"libby\n"
    large = {name.replace("480p", "Full-Resolution"): b"x" for name in files if "480p" in name}
    catalog = catalog_of("davis", data.contained(kind, tmp_path / "in", files | large), "masks")
    frames = sorted(name for name in files if "JPEGImages" in name)
    assert paths(catalog) == frames
    assert [record.video for record in records(catalog)] == [name.split("/")[3] for name in frames]
    masks = {name: name.replace("JPEGImages", "Annotations").replace("jpg", "png") for name in frames}
    assert extras(catalog) == {name: {"mask.png": files[mask]} for name, mask in masks.items()}
    only_large = catalog_of("davis", data.write_folder(tmp_path / "large", large))
    assert len(only_large) == len(frames)


def test_davis_that_is_none(tmp_path):
    with pytest.raises(HvcError, match=r"expected names like JPEGImages/480p/.*`frames`"):
        catalog_of("davis", data.write_folder(tmp_path, {"bear/0.jpg": b"x"}))


def test_any_folders_of_frames(tmp_path):
    names = [
        "a/b/frame_2.jpg",
        "a/b/frame_10.jpg",
        "a/img1 (3).png",
        "c/x.jpg",
        "c/y.jpg",
        "d/1.jpg",
        "d/01.jpg",
    ]
    catalog = catalog_of("frames", data.write_folder(tmp_path, dict.fromkeys(names, b"x")))
    assert [(r.path, r.video, r.frame) for r in records(catalog)] == [
        ("a/img1 (3).png", "a", 3),
        ("a/b/frame_2.jpg", "a/b", 2),
        ("a/b/frame_10.jpg", "a/b", 10),
        ("c/x.jpg", "c", 0),
        ("c/y.jpg", "c", 1),
        ("d/01.jpg", "d", 0),
        ("d/1.jpg", "d", 1),
    ]
    data.put(tmp_path / "stray.jpg", b"x")
    with pytest.raises(HvcError, match=r"stray\.jpg: the source `frames` takes one folder per video"):
        catalog_of("frames", str(tmp_path))
