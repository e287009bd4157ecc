"""Published figures to compare with, and what has to be said of each.

Only figures that were read in the source named here, most of them READMEs of the methods' repositories;
none is quoted from memory. Protocols differ: context frames, radius, temperature, resolution of features,
what is merged. So they stand beside measured figures, marked, and are not measured ones.
"""

from dataclasses import dataclass

SEQUENCES = {
    "davis2016": 20,
    "davis2016-merged": 20,
    "davis2017": 30,
    "davis2017-test-dev": 30,
    "youtube-vos-2018": 474,
    "youtube-vos-2019": 507,
    "vost": 70,
    "vip": 50,
    "jhmdb": 268,
}
"""Sequences of a whole benchmark (of the split that is scored): scores of fewer are not comparable."""

HEADLINES = {
    "vost": "j_mean",
    "vip": "miou",
    "jhmdb": "pck_0.1",
    "youtube-vos-2018": "g",
    "youtube-vos-2019": "g",
}
"""The measure by which methods are compared, where it is not J&F."""


@dataclass(frozen=True)
class Published:
    """What a method's authors, or somebody who repeated it, say that it scores."""

    benchmark: str
    method: str
    scores: dict[str, float]
    """Percent."""
    backbone: str
    trained_on: str
    """Empty where the source does not say."""
    source: str
    remark: str = ""
    """What the figure depends on that a reader might not expect."""


def headline_of(benchmark: str) -> str:
    """The measure by which methods are compared on a benchmark."""
    return HEADLINES.get(benchmark, "jf_mean")


def figures_for(benchmark: str) -> list[Published]:
    """The published figures of a benchmark, best first."""
    chosen = [figure for figure in PUBLISHED if figure.benchmark == benchmark]
    return sorted(chosen, key=lambda figure: -figure.scores[headline_of(benchmark)])


_MERGED = "merged with MoCo-v1 R50"
_HVC = "HVC README"
_SFC = "SFC README"
_DUL = "DUL README (visinf/dense-ulearn-vos)"
_STT = "Spa-then-Temp README"
_CROP = "CropMAE README"
_DINO = "DINOv3 model card"
_R18, _R50 = "ResNet-18", "ResNet-50"


def _hvc(benchmark: str, scores: dict[str, float], trained_on: str = "COCO") -> Published:
    return Published(benchmark, "HVC", scores, "ResNet-18 + ResNet-50", trained_on, _HVC, _MERGED)


def _hvc_elsewhere(benchmark: str, scores: dict[str, float]) -> Published:
    """Of benchmarks for which no settings and no script are published."""
    remark = "protocol, and what was merged, unpublished"
    return Published(benchmark, "HVC", scores, _R18, "COCO", _HVC, remark)


def _davis(
    method: str, value: float, backbone: str, trained_on: str, source: str, remark: str = ""
) -> Published:
    return Published("davis2017", method, {"jf_mean": value}, backbone, trained_on, source, remark)


def _three(
    method: str, values: tuple[float, ...], backbone: str, trained_on: str, source: str, remark: str = ""
) -> list[Published]:
    """DAVIS-2017, VIP and JHMDB, as (J&F, mIoU, PCK@0.1[, PCK@0.2])."""
    jf, miou, *pck = values
    joints = dict(zip(("pck_0.1", "pck_0.2"), pck, strict=False))
    rest = backbone, trained_on, source, remark
    return [
        Published("davis2017", method, {"jf_mean": jf}, *rest),
        Published("vip", method, {"miou": miou}, *rest),
        Published("jhmdb", method, joints, *rest),
    ]


PUBLISHED: tuple[Published, ...] = (
    _hvc("davis2016-merged", {"jf_mean": 80.1}),
    _hvc("davis2017", {"jf_mean": 73.1}),
    _hvc("davis2017", {"jf_mean": 73.1}, "YouTube-VOS"),
    _hvc("davis2017", {"jf_mean": 72.0}, "PASCAL VOC"),
    _hvc("davis2017", {"jf_mean": 71.1}, "MSRA10k"),
    _hvc("davis2017-test-dev", {"jf_mean": 61.7}),
    _hvc("youtube-vos-2018", {"g": 71.9}),
    _hvc("youtube-vos-2019", {"g": 71.6}),
    _hvc_elsewhere("vost", {"j_mean": 26.3, "j_last": 15.3}),
    _hvc_elsewhere("vip", {"miou": 44.6}),
    _hvc_elsewhere("jhmdb", {"pck_0.1": 61.7, "pck_0.2": 82.8}),
    _davis("LIIR", 72.2, _R18, "YouTube-VOS", "LIIR_pytorch README", "unofficial code"),
    _davis(
        "SFC",
        71.3,
        "ResNet-18 + ResNet-50",
        "YouTube-VOS",
        _SFC,
        f"{_MERGED}; reproduced with the released code",
    ),
    Published(
        *(
            "davis2017",
            "SFC, fine-grained network alone",
            {"jf_mean": 68.0, "j_mean": 65.0, "f_mean": 70.9},
        ),
        *(_R18, "YouTube-VOS", _SFC, "nearest published relative of a single HVC trunk"),
    ),
    Published(
        *("davis2017", "CRW", {"jf_mean": 67.6, "j_mean": 64.6, "f_mean": 70.6}),
        *(_R18, "Kinetics-400", "CRW README (ajabri/videowalk)", "context 20, top-10, temperature 0.05"),
    ),
    Published(
        *("vip", "CRW", {"miou": 37.1}, _R18, "Kinetics-400", "ajabri/videowalk, issue 10"),
        "public code repeated by others; the paper says 38.6",
    ),
    Published(
        *("jhmdb", "CRW", {"pck_0.1": 57.6, "pck_0.2": 79.6}, _R18, "Kinetics-400"),
        *("ajabri/videowalk, issue 10", "public code repeated by others; the paper says 59.3 / 84.9"),
    ),
    _davis("DUL", 69.4, _R18, "TrackingNet", _DUL),
    _davis("DUL", 69.3, _R18, "YouTube-VOS", _DUL),
    _davis("DUL", 68.7, _R18, "Kinetics-400", _DUL),
    _davis("DUL", 65.3, _R18, "OxUvA", _DUL),
    _davis("VFS", 69.5, _R50, "Kinetics-400", "VFS README"),
    _davis("VFS", 66.7, _R18, "Kinetics-400", "VFS README", "about 0.5 between runs, say its authors"),
    *_three(
        "Spa-then-Temp",
        (74.1, 42.8, 66.4, 84.4),
        _R50,
        "ImageNet, YouTube-VOS",
        _STT,
        "features at stride 4",
    ),
    *_three(
        "Spa-then-Temp",
        (73.5, 42.0, 65.6, 83.8),
        _R18,
        "ImageNet, YouTube-VOS",
        _STT,
        "features at stride 4",
    ),
    *_three("Spa-then-Temp", (71.2, 42.2, 63.6, 83.8), _R50, "ImageNet, YouTube-VOS", _STT),
    *_three("Spa-then-Temp", (70.7, 40.9, 63.5, 83.1), _R18, "ImageNet, YouTube-VOS", _STT),
    _davis("MoCo-v1", 66.8, _R50, "ImageNet", _SFC, "measured by SFC's authors"),
    _davis(
        "supervised classification", 67.3, _R50, "ImageNet with labels", _SFC, "measured by SFC's authors"
    ),
    _davis("SimSiam", 66.7, _R50, "ImageNet", _SFC, "measured by SFC's authors"),
    _davis("PixPro", 58.9, _R50, "ImageNet", _SFC, "measured by SFC's authors"),
    _davis("SMTC", 67.6, "ViT-S/16", "", "SMTC README", "features interpolated to stride 8"),
    _davis("SMTC", 64.0, "ViT-S/16", "", "SMTC README"),
    *_three("CropMAE", (60.4, 33.3, 43.6), "ViT-S/16", "ImageNet", _CROP),
    *_three("CropMAE", (58.6, 33.7, 42.9), "ViT-S/16", "Kinetics-400", _CROP),
    _davis("T-CoRe", 66.4, "ViT-B/16", "", "T-CoRe README", "context 20, radius 20, top-7"),
    _davis("T-CoRe", 64.7, "ViT-S/16", "", "T-CoRe README", "context 20, radius 20, top-7"),
    *(
        _davis(
            f"DINOv3 {size}", value, f"ViT-{size}/16", "LVD-1689M", _DINO, "frozen; protocol of its paper"
        )
        for size, value in (("L", 79.9), ("7B", 79.7), ("H+", 79.3), ("B", 77.2), ("S+", 75.5), ("S", 72.7))
    ),
)
