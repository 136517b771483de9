"""Annotations in volume files: label volumes, and segmentations of 3D Slicer."""
