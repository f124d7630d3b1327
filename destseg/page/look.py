"""What overlays and the report page have in common: colours, and how strongly the heat covers a picture."""

import numpy as np

from destseg.ops.components import EXTENT

# The heat's colours from faint to strong, dark violet to yellow, (red, green, blue) at equal steps. Lightness
# rises all the way, so the order also reads in grey and to colour-blind eyes.
HEAT = (
    (40, 10, 90),
    (90, 15, 120),
    (145, 25, 115),
    (195, 45, 85),
    (230, 80, 45),
    (248, 125, 20),
    (252, 175, 30),
    (250, 220, 80),
)
OUTLINE = (0, 240, 255)  # cyan: far from every colour of the heat
ANOMALOUS, NORMAL = (255, 92, 72), (92, 214, 120)
OPACITY = 0.45  # of the heat where the map reaches 1

# Share of the pixel threshold below which nothing is painted: with a memory bank most of a normal part comes
# close to half of it, and would lie in a haze. All of a mask is painted.
FAINTEST = EXTENT

# At the faintest value painted, at the threshold itself, and at 1: place among the heat's colours, and share
# of the opacity. The threshold has the same colour whatever it is, so overlays of several models can be
# compared.
PLACES, STRENGTHS = (0.0, 0.4, 1.0), (0.0, 0.6, 1.0)


def blend_heat(image: np.ndarray, anomaly_map: np.ndarray, threshold: float, opacity: float) -> np.ndarray:
    """Paint an anomaly map over a picture where it exceeds three quarters of the pixel threshold.

    Args:
        image: (h, w, 3) uint8.
        anomaly_map: (h, w) float in [0, 1].
        threshold: the pixel threshold.
        opacity: of the heat where the map reaches 1, in [0, 1].

    Returns:
        (h, w, 3) uint8.
    """
    threshold = min(max(threshold, 1e-3), 1 - 1e-3)
    pixels = image.copy()
    where = anomaly_map > FAINTEST * threshold
    levels, marks = anomaly_map[where], [FAINTEST * threshold, threshold, 1]
    colour = _heat_colours(np.interp(levels, marks, PLACES))
    alpha = opacity * np.interp(levels, marks, STRENGTHS)[:, None]
    pixels[where] = np.rint((1 - alpha) * image[where] + alpha * colour).astype(np.uint8)
    return pixels


def _heat_colours(place: np.ndarray) -> np.ndarray:
    """Interpolate the heat's colours: (k,) in [0, 1] -> (k, 3) in 0..255."""
    steps = np.linspace(0, 1, len(HEAT))
    colours = np.array(HEAT, np.float32)
    return np.stack([np.interp(place, steps, colours[:, channel]) for channel in range(3)], axis=1)
