"""The blur and the noise that a scanner adds: reconstruction kernels and correlated noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


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
