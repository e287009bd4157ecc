"""Data sets in their true layouts, made of real photos."""

import io
import json
import tarfile
import zipfile
from pathlib import Path


def put(path: Path, data: bytes) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_folder(root: Path, files: dict[str, bytes]) -> str:
    """Files in a folder."""
    for name, data in files.items():
        put(root / name, data)
    return str(root)


def write_zip(path: Path, files: dict[str, bytes]) -> str:
    """Files in a zip: every second one deflated, folders listed as zip programs do."""
    with zipfile.ZipFile(path, "w") as archive:
        for folder in sorted({name.rpartition("/")[0] + "/" for name in files if "/" in name}):
            archive.writestr(folder, b"")
        for number, (name, data) in enumerate(files.items()):
            archive.writestr(name, data, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[number % 2])
    return str(path)


def tar_bytes(files: dict[str, bytes]) -> bytes:
    """Files in a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> str:
    """Files in a tar."""
    path.write_bytes(tar_bytes(files))
    return str(path)


WRITERS = {"folder": write_folder, "zip": write_zip, "tar": write_tar}
"""A container's ending ("folder": none) -> how to make it."""


def contained(kind: str, path: Path, files: dict[str, bytes]) -> str:
    """The files in a container of that kind; returns its address."""
    return WRITERS[kind](path if kind == "folder" else path.with_name(f"{path.name}.{kind}"), files)


def photos(shared: Path, count: int) -> list[bytes]:
    """Real photos, as bytes of JPEG files."""
    return [path.read_bytes() for path in sorted((shared / "data/photos").iterdir())[:count]]


def imagenet_files(shared: Path, count: int) -> dict[str, bytes]:
    """`n01440764/n01440764_10026.JPEG`: real photos below their real classes."""
    paths = sorted((shared / "data/photos").iterdir())[:count]
    return {f"{path.name[:9]}/{path.name[:9]}_{i}.JPEG": path.read_bytes() for i, path in enumerate(paths)}


def captions_json(names: list[str]) -> bytes:
    """A caption file as COCO has them: five captions per image, ids in no order."""
    notes = [
        {"image_id": 9000 + i, "id": 100 * (5 - j) + i, "caption": f" Caption {j}\nof {name}. "}
        for i, name in enumerate(names)
        for j in range(5)
    ]
    images = [{"id": 9000 + i, "file_name": name} for i, name in enumerate(names)]
    return json.dumps({"info": {}, "images": images, "annotations": notes}).encode()


def below(shared_folder: Path, top: str) -> dict[str, bytes]:
    """All files of a folder, by path below it, after `top`."""
    files = sorted(path for path in shared_folder.rglob("*") if path.is_file())
    return {top + str(path.relative_to(shared_folder)): path.read_bytes() for path in files}
