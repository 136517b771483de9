"""Lesions: what the network found, slice by slice."""

from lung_d2.lesions.detections import SliceDetections

__all__ = ["SliceDetections"]
