"""The build of one patient: the numbers that shape the organs, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lung_d2.phantom.shapes import NoiseField

# Shape of the rib cage from the costophrenic recess (0) to the apex (1), as shares of its largest half axes.
_HEIGHTS = (-0.3, 0.0, 0.25, 0.5, 0.7, 0.85, 1.0, 1.15)
_CAGE_WIDTH = (0.98, 1.0, 1.0, 0.99, 0.94, 0.82, 0.60, 0.48)
_CAGE_DEPTH = (1.0, 1.02, 1.0, 0.98, 0.92, 0.80, 0.62, 0.56)
_CAGE_BACK = (0.0, 0.0, 0.0, 1.0, 4.0, 8.0, 11.0, 10.0)
_BODY_EXTRA = (0.0, 0.0, 1.0, 3.0, 14.0, 36.0, 74.0, 86.0)


@dataclass(frozen=True)
class Anatomy:
    """The build of one patient. Origin: midline, middle of the chest, lowest point of the lungs. Units: mm, HU.

    Attributes:
        lung_height: From the recess to the apex.
        cage_width: Largest half width of the inside of the rib cage.
        cage_depth: Largest half depth of the inside of the rib cage.
        squareness: Exponent of the superellipse of the cage.
        fat: Thickness of the fat under the skin.
        muscle: Scale of the muscles.
        breast: Height of the breasts above the chest wall (0: none).
        dome_right: Height of the right dome of the diaphragm.
        dome_left: Height of the left dome.
        heart: Scale of the heart.
        aorta: Radius of the aorta.
        carina: Height of the carina.
        rib_pitch: Distance of the ribs.
        rib_phase: Where the ribs begin, in pitches.
        rib_drop: How far a rib descends from back to front.
        prone: Lies on the chest.
        lung_hu: Mean of normal parenchyma.
        gravity_hu: Difference of the parenchyma from the upper to the lower side.
        bend: Sideways curve of the spine.
        warp: Field that bends every outline.
        grain: Field of fine texture.
    """

    lung_height: float
    cage_width: float
    cage_depth: float
    squareness: float
    fat: float
    muscle: float
    breast: float
    dome_right: float
    dome_left: float
    heart: float
    aorta: float
    carina: float
    rib_pitch: float
    rib_phase: float
    rib_drop: float
    prone: bool
    lung_hu: float
    gravity_hu: float
    bend: float
    warp: NoiseField
    grain: NoiseField

    @property
    def down(self) -> float:
        """Sign of ``y`` towards the table: -1 for a patient who lies on the chest."""
        return -1.0 if self.prone else 1.0

    def _profile(self, z: float, values: tuple[float, ...]) -> float:
        # Averaging over a short stretch rounds the corners of the linear interpolation.
        t = z / self.lung_height + np.linspace(-0.06, 0.06, 7)
        return float(np.interp(t, _HEIGHTS, values).mean())

    def cage_axes(self, z: float) -> tuple[float, float]:
        """Return half width and half depth of the inside of the rib cage at height ``z``, mm."""
        return self.cage_width * self._profile(z, _CAGE_WIDTH), self.cage_depth * self._profile(z, _CAGE_DEPTH)

    def cage_center(self, z: float) -> float:
        """Return how far back the middle of the cage lies at height ``z``, mm."""
        return self._profile(z, _CAGE_BACK)

    def spine(self, z: float) -> tuple[float, float]:
        """Return ``(x, y)`` of the middle of the vertebral body at height ``z``, mm."""
        x = self.bend * np.sin(z / self.lung_height * 3.0)
        return float(x), self.cage_center(z) + self.cage_axes(z)[1] - 41.0

    def body_axes(self, z: float) -> tuple[float, float]:
        """Return half width and half depth of the body at height ``z``, mm."""
        width, depth = self.cage_axes(z)
        extra = self._profile(z, _BODY_EXTRA)
        wall = 14.0 + 7.0 * self.muscle + self.fat
        return width + wall + 1 + extra, depth + wall + 0.33 * extra

    @property
    def body_reach(self) -> float:
        """Half the largest width of the body below the shoulders, mm."""
        return max(self.body_axes(z)[0] for z in np.linspace(0.0, 0.72 * self.lung_height, 9))


def draw_anatomy(rng: np.random.Generator, lung_hu: tuple[float, float], prone_share: float) -> Anatomy:
    """Draw a patient's build.

    Args:
        rng: Source of randomness.
        lung_hu: Lowest and highest mean of normal parenchyma, HU.
        prone_share: Probability of lying prone.

    Returns:
        The build; different draws differ in size, shape, heart and lung volume.
    """
    size = rng.uniform(0.92, 1.08)
    height = rng.uniform(218, 262) * size
    female = rng.random() < 0.45
    return Anatomy(
        lung_height=height,
        cage_width=rng.uniform(128, 144) * size,
        cage_depth=rng.uniform(87, 101) * size,
        squareness=rng.uniform(2.05, 2.3),
        fat=rng.uniform(6, 20),
        muscle=rng.uniform(0.8, 1.3),
        breast=rng.uniform(12, 34) if female else 0.0,
        dome_right=height * rng.uniform(0.27, 0.36),
        dome_left=height * rng.uniform(0.22, 0.31),
        heart=rng.uniform(0.88, 1.12) * size,
        aorta=rng.uniform(11.0, 15.0),
        carina=height * rng.uniform(0.66, 0.71),
        rib_pitch=height / rng.uniform(8.8, 9.8),
        rib_phase=rng.uniform(),
        rib_drop=rng.uniform(70, 105),
        prone=bool(rng.random() < prone_share),
        lung_hu=rng.uniform(*lung_hu),
        gravity_hu=rng.uniform(15, 60),
        bend=rng.normal(0, 3.0),
        warp=NoiseField.draw(rng),
        grain=NoiseField.draw(rng),
    )
