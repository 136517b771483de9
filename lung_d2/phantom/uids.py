"""UIDs that follow from the cohort and the patient, so that a cohort written twice is the same."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from lung_d2.phantom.spec import PhantomSpec

# Raise it with every change of the generator that changes a picture: cohorts made before are then not mixed in.
GENERATOR_VERSION = 1


def spec_hash(spec: PhantomSpec) -> str:
    """Return 64 hexadecimal digits for the generator and all parameters of a spec but the number of its patients."""
    return hashlib.sha256(f"{GENERATOR_VERSION} {replace(spec, patients=1)!r}".encode()).hexdigest()


def phantom_uid(spec: PhantomSpec, number: int, purpose: str) -> str:
    """Return a UID under 2.25 (a UUID as one number, DICOM PS3.5 B.2), derived from all that decides the picture.

    Args:
        spec: The cohort.
        number: Number of the patient.
        purpose: What the UID is for.
    """
    return derived_uid(f"{spec_hash(spec)} {number} {purpose}")


def derived_uid(text: str) -> str:
    """Return a UID under 2.25 that follows from a text."""
    digest = hashlib.sha256(text.encode()).digest()[:16]
    # Version 5 and variant bits make it a well-formed UUID (RFC 4122).
    value = bytearray(digest)
    value[6], value[8] = (value[6] & 0x0F) | 0x50, (value[8] & 0x3F) | 0x80
    return f"2.25.{int.from_bytes(value, 'big')}"
