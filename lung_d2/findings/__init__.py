"""What a recognition found, as JSON, CSV, one page, overlays, NIfTI, DICOM SEG and SR."""
