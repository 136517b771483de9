"""Identities as hashes: what names patients and series outside the DICOM objects."""

from __future__ import annotations

import hashlib


def hash_identity(kind: str, value: str) -> str:
    """Hash a patient id or UID to 16 hexadecimal digits, fit for a file name.

    Args:
        kind: ``"patient"`` or ``"series"``: the same value of another kind gets another hash.
        value: The identity; of a damaged file it may hold what is no text.
    """
    return hashlib.sha256(f"{kind}\0{value}".encode("utf-8", "backslashreplace")).hexdigest()[:16]
