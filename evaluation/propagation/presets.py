"""Protocols of the field by name, for figures that are compared with published ones."""

from typing import Any

from hvc.evaluation.propagation.protocol import Protocol

_HVC = Protocol()
"""The official configuration: one set for all that HVC ships a list of. Its settings for VOST, VIP and
JHMDB are unpublished."""

_CRW: dict[str, Any] = {
    "context": 20,
    "top_k": 10,
    "temperature": 0.05,
    "image_resize": "half-pixel",
    "label_resize": "half-pixel",
    "first_frame": "given",
    "late_objects": "never",
}
"""ajabri/videowalk, README and code/test.py; visinf/dense-ulearn-vos has the same numbers."""

_UVC: dict[str, Any] = {
    "radius": None,
    "top_k_per_frame": True,
    "temperature": 1.0,
    "image_resize": "half-pixel",
    "label_resize": "half-pixel",
    "first_frame": "given",
    "late_objects": "never",
    "joint_peaks": 5,
}
"""Liusifei/UVC, README, test_mask_vip.py and test_jhmdb.py; JHMDB as xiaolonw/TimeCycle does it."""

_T_CORE: dict[str, Any] = {
    "context": 20,
    "radius": 20,
    "top_k": 7,
    "temperature": 0.7,
    "image_resize": "half-pixel",
    "label_resize": "half-pixel",
    "first_frame": "given",
    "late_objects": "never",
}
"""T-CoRe's and CropMAE's READMEs, for vision transformers; their cells are 16 pixels wide."""

PRESETS: dict[str, Protocol] = {
    "hvc": _HVC,
    # Alxead/SFC, README; code/test_vos.py is CRW's, with its resizing and its first mask
    "sfc": Protocol(**_CRW | {"radius": 15, "top_k": 15, "temperature": 0.1, "merge_weight": 1.75}),
    "crw": Protocol(**_CRW),
    # videowalk issues 10 and 45: the author's words on what the paper's figures were made with
    "crw-vip": Protocol(**_CRW | {"context": 4, "input_size": (560, 560)}),
    "crw-jhmdb": Protocol(**_CRW | {"context": 7, "input_size": (320, 320)}),
    # xvjiarui/VFS, configs of ResNet-18; a window of 24 cells is a radius of 12. Its masks by nearest
    # neighbour on the grid, and its stretching of every object's map to 0..1, are no part of this
    "vfs": Protocol(
        **_CRW
        | {"temperature": 0.07, "reference_window": True, "joint_peaks": 5, "joint_first_frame": True}
    ),
    "uvc-vip": Protocol(**_UVC | {"context": 1, "top_k": 5, "input_size": (560, 560)}),
    "uvc-jhmdb": Protocol(**_UVC | {"context": 7, "top_k": 20, "input_size": (320, 320)}),
    "t-core": Protocol(**_T_CORE | {"input_size": (480, 880)}),
    "t-core-vip": Protocol(**_T_CORE | {"top_k": 10, "input_size": (880, 880)}),
    "t-core-jhmdb": Protocol(**_T_CORE | {"input_size": (320, 320)}),
}
"""By name. Numbers only: features are those of the encoder at hand, of length 1 over channels."""
