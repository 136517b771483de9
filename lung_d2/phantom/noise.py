"""Smooth random fields that are fixed in the patient, and the noise and blur that a scanner adds."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lung_d2.phantom.shapes import Plane

_LATTICE = 32


@dataclass(frozen=True)
class NoiseField:
    """A periodic random lattice, read as a smooth function of the position in mm.

    It belongs to the patient, not to the voxels: another spacing samples the same function.

    Attributes:
        values: float32 ``(32, 32, 32)``, mean 0 and about unit variance once interpolated.
    """

    values: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator) -> NoiseField:
        """Draw a lattice of independent normal values."""
        return cls((rng.standard_normal((_LATTICE,) * 3) * 1.5).astype(np.float32))

    def on_plane(self, plane: Plane, scale_mm: float, shift: float = 0.0) -> np.ndarray:
        """Sample the field on a plane.

        Args:
            plane: Where to sample.
            scale_mm: Distance of the lattice points, mm: about the size of the grains.
            shift: Offset in lattice units, so that one lattice serves as several fields.

        Returns:
            float32 ``(H, W)``.
        """
        z = plane.z / scale_mm + shift * 7.3
        low = int(np.floor(z))
        weight = z - low
        weight = weight * weight * (3.0 - 2.0 * weight)
        layer = (1 - weight) * self.values[low % _LATTICE] + weight * self.values[(low + 1) % _LATTICE]
        padded = np.pad(layer.astype(np.float32), 3, mode="wrap")
        columns = np.mod(plane.x[0] / scale_mm + shift * 3.1, _LATTICE) + 3
        rows = np.mod(plane.y[:, 0] / scale_mm + shift * 5.7, _LATTICE) + 3
        map_x = np.broadcast_to(columns.astype(np.float32), plane.shape)
        map_y = np.broadcast_to(rows.astype(np.float32)[:, None], plane.shape)
        return cv2.remap(padded, np.ascontiguousarray(map_x), np.ascontiguousarray(map_y), cv2.INTER_CUBIC)


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel: how sharp the picture is and how coarse its noise.

    Attributes:
        name: Name written to ConvolutionKernel.
        blur_mm: Standard deviation of the point spread, mm.
        edge_gain: Strength of the edge enhancement of a sharp kernel (0: none).
        cutoff_per_mm: Where the noise power has fallen to 1/e, cycles per mm.
        noise_gain: Noise relative to the soft kernel at the same dose.
    """

    name: str
    blur_mm: float
    edge_gain: float
    cutoff_per_mm: float
    noise_gain: float


KERNELS = {
    "soft": Kernel("SOFT", 0.62, 0.0, 0.30, 1.0),
    "lung": Kernel("LUNG", 0.45, 0.25, 0.46, 1.7),
    "sharp": Kernel("SHARP", 0.36, 0.45, 0.58, 2.3),
}


def apply_kernel(image: np.ndarray, pixel_mm: float, kernel: Kernel) -> np.ndarray:
    """Blur a slice by the point spread of a kernel and enhance its edges.

    Args:
        image: float32 ``(H, W)``, HU.
        pixel_mm: Pixel size, mm.
        kernel: The kernel.

    Returns:
        float32 ``(H, W)``, HU.
    """
    sigma = max(kernel.blur_mm / pixel_mm, 0.3)
    out = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    if kernel.edge_gain:
        wide = cv2.GaussianBlur(out, (0, 0), 1.6 * sigma, borderType=cv2.BORDER_REPLICATE)
        out = out + kernel.edge_gain * (out - wide)
    return out


def scanner_noise(shape: tuple[int, int], pixel_mm: float, kernel: Kernel, rng: np.random.Generator) -> np.ndarray:
    """Return correlated noise of unit standard deviation.

    The power rises with the frequency (the ramp of filtered back projection) and falls with the kernel's cut-off
    (Riederer, Pelc and Chesler 1978).

    Args:
        shape: Rows and columns.
        pixel_mm: Pixel size, mm.
        kernel: The kernel.
        rng: Source of randomness.

    Returns:
        float32 ``(H, W)``.
    """
    white = rng.standard_normal(shape, dtype=np.float32)
    fy = np.fft.fftfreq(shape[0], pixel_mm)[:, None]
    fx = np.fft.rfftfreq(shape[1], pixel_mm)[None, :]
    frequency = np.hypot(fy, fx)
    transfer = np.sqrt(frequency + 0.02) * np.exp(-0.5 * (frequency / kernel.cutoff_per_mm) ** 2)
    noise = np.fft.irfft2(np.fft.rfft2(white) * transfer, s=shape).astype(np.float32)
    return noise / max(float(noise.std()), 1e-6)
