"""Annotations over DICOM series."""
