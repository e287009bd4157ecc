"""COCO on disk: folders or zips `train2017`, `unlabeled2017` and the like, and their captions."""

import json
import re
from collections.abc import Iterator

from hvc.base.errors import HvcError
from hvc.base.storage import MissingError, open_store
from hvc.data_prep.catalog import Extra, Record
from hvc.data_prep.layouts import CAPTION, SUFFIXES, Wanted, archives_there, real_files, suffix
from hvc.data_prep.tree import Entry, Tree

_SPLIT = re.compile(r"(?P<top>(?:.*/)?)(?P<split>(?:train|unlabeled|val|test)20\d\d)/[^/]+", re.DOTALL)
_IMAGE = re.compile(r"(?:COCO_\w+_)?\d{12}\.[^/]+")


def find_coco(tree: Tree, wanted: Wanted) -> Iterator[Record]:
    """One image folder (as folder or zip), or a folder that holds several.

    Of several, those called `train...` and `unlabeled...` are taken: images to evaluate on must not
    slip into training. Caption: all captions of an image, one per line, from
    `annotations/captions_SPLIT.json` beside the image folder; COCO has none for `unlabeled` and `test`.
    """
    files = list(real_files(tree))
    splits = _chosen(tree, files)
    captions: dict[str, bytes] = {}
    if "captions" in wanted:
        for folder in splits:
            captions |= _captions(tree, folder, files)
    for path, size, place in (entry for folder in splits for entry in splits[folder]):
        text = captions.get(path)
        extras = () if text is None else (Extra(CAPTION, Entry(path, len(text)), text),)
        yield Record(path, size, place, extras=extras)


def _chosen(tree: Tree, files: list[Entry]) -> dict[str, list[Entry]]:
    """Image folder (with a `/` at the end; empty: the tree itself) -> its images, in order."""
    found: dict[str, list[Entry]] = {}
    for entry in files:
        match = _SPLIT.fullmatch(entry.path)
        if suffix(entry.path) in SUFFIXES and (match or _IMAGE.fullmatch(entry.path)):
            found.setdefault(entry.path.rpartition("/")[0] + "/" if match else "", []).append(entry)
    if not found:
        raise HvcError(
            f"no COCO images in {tree.address}: expected names like train2017/000000000009.jpg; "
            f"use the source `folder` for other images{archives_there(files)}"
        )
    if len(found) > 1:
        chosen = {folder: images for folder, images in found.items() if _is_for_training(folder)}
        tops = {folder.rpartition("/")[0].rpartition("/")[0] for folder in chosen}
        if len(tops) != 1:
            names = ", ".join(folder or "(top)" for folder in sorted(found))
            raise HvcError(f"{tree.address} holds {names}: point to the one to use")
        return chosen
    return found


def _is_for_training(folder: str) -> bool:
    return folder.rstrip("/").rpartition("/")[2].startswith(("train", "unlabeled"))


def _captions(tree: Tree, folder: str, files: list[Entry]) -> dict[str, bytes]:
    """Path of an image -> its captions."""
    address = tree.address.rstrip("/")
    above, _, split = folder.rstrip("/").rpartition("/") if folder else ("", "", _last_part(address))
    if split.startswith(("unlabeled", "test")):
        return {}
    name = f"annotations/captions_{split}.json"
    inside = f"{above}/{name}" if above else name
    entry = next((entry for entry in files if entry.path == inside), None) if folder else None
    if entry is not None:
        return _parsed(tree.read(entry), f"{address}/{inside}", folder)
    outside = address.rpartition("/")[0] or ("/" if address.startswith("/") else ".")
    try:
        return _parsed(open_store(outside).read(name), f"{outside}/{name}", folder)
    except MissingError:
        pass
    except HvcError as error:
        raise HvcError(f"captions of {address}: {error}") from None
    tried = f"{address}/{inside} and {outside}/{name}" if folder else f"{outside}/{name}"
    raise HvcError(f"no captions for {folder or address}: looked for {tried}")


def _last_part(address: str) -> str:
    name = address.rpartition("/")[2]
    return name.removesuffix(".zip").removesuffix(".tar")


def _parsed(data: bytes, where: str, folder: str) -> dict[str, bytes]:
    try:
        content = json.loads(data)
        names = {image["id"]: image["file_name"] for image in content["images"]}
        lines: dict[str, list[str]] = {}
        for note in sorted(content["annotations"], key=lambda note: note["id"]):
            lines.setdefault(folder + names[note["image_id"]], []).append(" ".join(note["caption"].split()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HvcError(f"{where} is no COCO caption file: {type(error).__name__} {error}") from None
    return {path: "\n".join(texts).encode("utf-8", "replace") for path, texts in lines.items()}
