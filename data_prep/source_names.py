"""The words that `hvc shard` understands; apart from all else, so that `hvc --help` stays light."""

from enum import StrEnum

EXTRAS = ("labels", "captions", "masks")
"""What can travel along with an image."""


class Source(StrEnum):
    """How an input lies on disk."""

    FOLDER = "folder"
    IMAGENET = "imagenet"
    COCO = "coco"
    YOUTUBE_VOS = "youtube-vos"
    DAVIS = "davis"
    FRAMES = "frames"
    VIDEO = "video"
