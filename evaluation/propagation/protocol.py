"""The numbers of the label-propagation protocol."""

from typing import Annotated, Literal

from pydantic import Field

from hvc.base.config import Config

Pixels = Annotated[int, Field(ge=8)]
Resize = Literal["aligned", "half-pixel"]
Precision = Literal["float32", "float16"]


class Protocol(Config):
    """How labels travel through a video; the defaults are the official HVC settings.

    Protocols of other methods are in `presets`.
    """

    context: int = Field(default=50, ge=0)
    """Frames before the current one that may be copied from, besides the reference frame."""
    radius: float | None = Field(default=12, gt=0)
    """Context positions count when nearer than this to the query, in feature-map cells (8 pixels);
    null: all count."""
    reference_window: bool = False
    """Whether the radius restricts the reference frame too, as in VFS; officially it does not."""
    top_k: int = Field(default=15, ge=1)
    """Positions that vote on a label, chosen jointly from reference and context."""
    top_k_per_frame: bool = False
    """Instead, so many of every single frame, and the mean of the frames' votes (TimeCycle, UVC). A frame's
    vote is a softmax over its chosen positions; UVC takes it over all and keeps the chosen ones' share."""
    temperature: float = Field(default=0.1, gt=0)
    """Divides affinities before the softmax: smaller means that the best match decides alone."""
    precision: Precision = "float32"
    """What features and affinities are kept in. float16 is what the official code's autocast takes: an
    affinity is then rounded by up to 0.0005, which moves its weight by up to 0.0005 / `temperature` of
    itself. On a CPU only the features are rounded, since nothing is gained there by more."""
    merge_weight: float = Field(default=1.05, gt=0)
    """Weight of the first of two merged encoders, the official lambda. Of no effect with one encoder."""
    input_size: Pixels | tuple[Pixels, Pixels] | None = None
    """Shorter image side in pixels for the network, or [height, width] whatever the image's shape; null
    keeps the size. Labels keep the image's size."""
    image_resize: Resize = "aligned"
    """How images are scaled to `input_size`, bilinear without smoothing, in the two ways of
    `label_resize`."""
    label_resize: Resize = "aligned"
    """How masks go to the feature grid and back, bilinear: corners on corners as in HVC, or OpenCV's way
    (centres of pixels at halves) as in CRW and what builds on it."""
    first_frame: Literal["resampled", "given"] = "resampled"
    """Labels returned for the first frame: its mask after the way through the feature grid, as the
    official code writes it, or the given mask itself. DAVIS scores ignore that frame."""
    late_objects: Literal["inject", "never"] = "inject"
    """Ids first given after the first mask: drawn in and followed from there (DAVIS has none, YouTube-VOS
    needs it, HVC's loader does it for VIP too), or left out (TimeCycle, UVC, CRW on VIP)."""
    joint_peaks: Literal[3, 5] = 3
    """Cells of a joint's map whose weighted mean is the joint: 3 in CRW, 5 in TimeCycle, UVC and VFS."""
    lost_joints: Literal["excluded", "wrong"] = "excluded"
    """A joint whose map is empty: left out of PCK, as all published figures have it, or a miss."""
    joint_first_frame: bool = False
    """Whether the first frame, whose joints are given, counts in PCK: in VFS it does, elsewhere not."""
