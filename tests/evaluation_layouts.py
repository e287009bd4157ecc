"""Small data sets in the layouts in which the benchmarks' own are downloaded."""

import json
from pathlib import Path

import numpy as np
from evaluation_video import Video, make_video
from PIL import Image
from scipy.io import savemat

from hvc.evaluation.layouts.masks import write_mask


def put_frame(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def put_list(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def davis2016(root: Path, *names: str, frames: int = 4) -> Path:
    """Masks of 0 and 255, without a list."""
    video = make_video(frames)
    for name in names:
        for index, (image, labels) in enumerate(zip(video.frames, video.labels, strict=True)):
            put_frame(root / "JPEGImages" / "480p" / name / f"{index:05d}.jpg", image)
            mask = (255 * (labels > 0)).astype(np.uint8)
            put_frame(root / "Annotations" / "480p" / name / f"{index:05d}.png", mask)
    return root


def davis2017(root: Path, *names: str, frames: int = 4, annotated: int | None = None) -> Path:
    """Palette masks of objects 1 and 2, of the first so many frames."""
    video = make_video(frames, ids=(1, 2))
    for name in names:
        for index, (image, labels) in enumerate(zip(video.frames, video.labels, strict=True)):
            put_frame(root / "JPEGImages" / "480p" / name / f"{index:05d}.jpg", image)
            if annotated is None or index < annotated:
                write_mask(root / "Annotations" / "480p" / name / f"{index:05d}.png", labels)
    return root


def youtube_vos(
    root: Path,
    name: str = "0a49f5265b",
    video: Video | None = None,
    *,
    every: bool = True,
    meta: bool = True,
) -> Path:
    """A video of objects 3, from the first frame on, and 200, from frame 5 on; with every frame or not."""
    video = video or make_video(12, ids=(3, 200))
    last = len(video.frames) - 1
    for index, image in enumerate(video.frames):
        if every:
            put_frame(root / "valid_all_frames" / "JPEGImages" / name / f"{index:05d}.jpg", image)
        if index % 5 == 0:
            put_frame(root / "valid" / "JPEGImages" / name / f"{index:05d}.jpg", image)
    masks = root / "valid" / "Annotations" / name
    ids = [int(number) for number in np.unique(video.labels) if number]
    write_mask(masks / "00000.png", np.where(video.labels[0] == ids[0], ids[0], 0).astype(np.uint8))
    if len(ids) > 1:
        write_mask(masks / "00005.png", np.where(video.labels[5] == ids[1], ids[1], 0).astype(np.uint8))
    if meta:
        path = root / "valid" / "meta.json"
        content = json.loads(path.read_text()) if path.exists() else {"videos": {}}
        content["videos"][name] = {
            "objects": {
                str(number): {
                    "category": "bear",
                    "frames": [f"{i:05d}" for i in range(5 * place, last + 1, 5)],
                }
                for place, number in enumerate(ids)
            }
        }
        path.write_text(json.dumps(content))
    return root


def vost(root: Path, *names: str, ten: bool = True) -> Path:
    """Seven frames at 10 a second, every other one (frame numbers as in the data set) annotated."""
    video = make_video(8, ids=(1, 2))
    for name in names:
        for index, (image, labels) in enumerate(zip(video.frames, video.labels, strict=True)):
            stem = f"frame{6 * index:05d}"
            if ten:
                put_frame(root / "JPEGImages_10fps" / name / f"{stem}.jpg", image)
            if index % 2 == 0:
                put_frame(root / "JPEGImages" / name / f"{stem}.jpg", image)
                write_mask(root / "Annotations" / name / f"{stem}.png", labels)
    put_list(root / "ImageSets" / "val.txt", *names)
    return root


def vip(root: Path, *names: str) -> Path:
    """Every 25th frame; the class 13 is not in the first one."""
    video = make_video(4, ids=(2, 13))
    for name in names:
        for index, (image, labels) in enumerate(zip(video.frames, video.labels, strict=True)):
            stem = f"{25 * index + 1:012d}"
            put_frame(root / "Images" / name / f"{stem}.jpg", image)
            shown = labels if index else np.where(labels == 13, 0, labels)
            put_frame(root / "Annotations" / "Category_ids" / name / f"{stem}.png", shown.astype(np.uint8))
    put_list(root / "lists" / "val_videos.txt", *names)
    return root


def jhmdb(root: Path, clips: dict[str, str], *, frames: int = 5, split: bool = True) -> Path:
    """Clips (name -> class of action), the last of each class for training."""
    video = make_video(frames)
    for clip, action in clips.items():
        for index, image in enumerate(video.frames):
            put_frame(root / "Rename_Images" / action / clip / f"{index + 1:05d}.png", image)
        joints = root / "joint_positions" / action / clip / "joint_positions.mat"
        joints.parent.mkdir(parents=True)
        savemat(joints, {"pos_img": joint_positions(frames).transpose(2, 1, 0) + 1, "viewpoint": "front"})
    for action in set(clips.values()):
        (root / "Rename_Images" / action / ".AppleDouble").mkdir()
        names = [clip for clip, of in clips.items() if of == action]
        lines = [f"{name}.avi {1 if name == names[-1] else 2}" for name in names]
        if split:
            put_list(root / "splits" / f"{action}_test_split1.txt", *lines)
            put_list(root / "splits" / f"{action}_test_split2.txt", *(line[:-1] + "1" for line in lines))
    return root


def joint_positions(frames: int) -> np.ndarray:
    """Points on the square of `make_video`, moving with it: [T, 15, 2], pixels from 0."""
    rest = np.random.default_rng(0).uniform((12, 8), (36, 32), (15, 2))
    return rest + 3 * np.arange(frames)[:, None, None] * [1, 0]
