"""What the paper publishes about MVTec AD: its augmentation, and the figures that tables show beside ours.

Source: "DeSTSeg: Segmentation Guided Denoising Student-Teacher for Anomaly Detection", arXiv 2211.11317; in
percent, at 256 x 256, means over five seeds, each with its standard deviation where one is given.
"""

import re

Figure = tuple[float, ...]  # a mean, and the standard deviation if it is known
Figures = dict[str, Figure]  # by the metric's name in `destseg.metrics.Metrics`

ROTATIONS: dict[
    str, float | str
] = {  # of the categories that the paper rotates, as `rotate` of `fit` takes it
    **dict.fromkeys(("wood", "zipper", "cable"), 5.0),
    **dict.fromkeys(("bottle", "grid", "hazelnut", "leather", "tile", "carpet", "screw"), "90"),
}

ABLATION: dict[str, tuple[bool, bool, bool]] = {  # denoising, encoder_decoder, segmentation
    "ablation-1-none": (False, False, False),
    "ablation-2-den": (True, False, False),
    "ablation-3-ed": (False, True, False),
    "ablation-4-seg": (False, False, True),
    "ablation-5-den+ed": (True, True, False),
    "ablation-6-den+seg": (True, False, True),
    "ablation-7-ed+seg": (False, True, True),
    "ablation-8-all": (True, True, True),
}

_METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "pro", "iap", "iap90")
_ABLATION = (
    *((94.8, 52.9, 55.8), (93.4, 49.6, 53.9), (95.4, 53.3, 57.7), (97.3, 70.1, 71.8)),
    *((94.5, 54.0, 58.5), (97.3, 70.9, 72.3), (97.7, 69.7, 71.2), (98.6, 75.8, 76.4)),
)
_PER_CATEGORY = {  # pixel AUROC, pixel AP, IAP, IAP@90
    "bottle": (99.2, 90.3, 90.5, 82.5),
    "cable": (97.3, 60.4, 51.1, 26.7),
    "capsule": (99.1, 56.3, 49.4, 27.3),
    "carpet": (96.1, 72.8, 84.5, 58.6),
    "grid": (99.1, 61.5, 61.6, 47.4),
    "hazelnut": (99.6, 88.4, 87.7, 77.6),
    "leather": (99.7, 75.6, 77.5, 65.3),
    "metal_nut": (98.6, 93.5, 93.6, 86.5),
    "pill": (98.7, 83.1, 84.8, 61.1),
    "screw": (98.5, 58.7, 53.6, 8.6),
    "tile": (98.0, 90.0, 94.7, 86.5),
    "toothbrush": (99.3, 75.2, 59.8, 32.1),
    "transistor": (89.1, 64.8, 78.3, 49.6),
    "wood": (97.7, 81.9, 87.8, 76.4),
    "zipper": (99.1, 85.2, 90.6, 80.3),
}


def _figures(names: tuple[str, ...], means: Figure, deviations: Figure = ()) -> Figures:
    pairs = zip(means, deviations, strict=True) if deviations else ((mean,) for mean in means)
    return dict(zip(names, pairs, strict=True))


METHODS: dict[str, Figures] = {  # means over the 15 categories
    "paper": _figures(_METRICS, (98.6, 97.9, 75.8, 94.4, 76.4, 57.8), (0.4, 0.3, 0.8, 0.4, 1.0, 1.8)),
    "stpm": _figures(
        ("image_auroc", "pixel_auroc", "pixel_ap", "iap", "iap90"), (95.1, 96.6, 54.3, 56.9, 37.5)
    ),
    **{
        name: _figures(("image_auroc", "pixel_ap", "iap"), means)
        for name, means in zip(ABLATION, _ABLATION, strict=True)
    },
}
CATEGORIES: dict[str, Figures] = {  # of the whole method
    name: _figures(("pixel_auroc", "pixel_ap", "iap", "iap90"), means)
    for name, means in _PER_CATEGORY.items()
} | {
    "transistor": _figures(
        ("pixel_auroc", "pixel_ap", "iap", "iap90"), _PER_CATEGORY["transistor"], (3.4, 4.0, 2.5, 8.4)
    )
}


def published_name(category: str) -> str:
    """Return a category's name as published: without the size that may stand behind it.

    Example:
        >>> published_name("transistor_256"), published_name("metal_nut")
        ('transistor', 'metal_nut')
    """
    return re.sub(r"_\d+$", "", category)
