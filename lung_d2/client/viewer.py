"""Where the viewer is: OHIF, as it is published, fetched by the set-up and never changed."""

from __future__ import annotations

import base64
import hashlib
import tarfile
from pathlib import Path

from lung_d2.errors import InputError
from lung_d2.files import replace_folder

VERSION = "3.13.2"
PACKAGE = f"@ohif/app@{VERSION}"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
"""Of the package at the npm registry (https://www.npmjs.com/package/@ohif/app)."""

_HOME = Path(__file__).resolve().parents[2] / ".venv" / "share" / "ohif"
_LEFT_OUT = (".map", ".map.gz")
_LEFT_OUT_FOLDERS = ("package/dist/ort/", "package/dist/dicom-microscopy-viewer/")


def find_viewer(folder: Path | None = None) -> Path | None:
    """Return the folder with OHIF's pages; None where it was not fetched.

    Args:
        folder: Where it is, if not where :func:`install_viewer` puts it.

    Raises:
        InputError: A folder was given, and OHIF is not in it.
    """
    found = folder or _HOME
    if (found / "index.html").is_file():
        return found
    if folder is not None:
        raise InputError(folder, found="no index.html", expected="OHIF's dist", remedy="leave --viewer out")
    return None


def install_viewer(package: Path, folder: Path = _HOME) -> Path:
    """Unpack OHIF from its npm package, whole or not at all.

    Args:
        package: The file that ``npm pack`` fetched.
        folder: Where it goes.

    Raises:
        InputError: It is not the package of :data:`INTEGRITY`.
    """
    digest = "sha512-" + base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    if digest != INTEGRITY:
        raise InputError(
            package, found=f"integrity {digest[:24]}…", expected=INTEGRITY[:24] + "…", remedy="fetch it again"
        )
    staging = folder.with_name(f".{folder.name}.part")
    staging.mkdir(parents=True, exist_ok=True)
    with tarfile.open(package) as archive:
        for member in archive:
            inside = member.name.removeprefix("package/dist/")
            kept = inside != member.name and not inside.endswith(_LEFT_OUT)
            if member.isfile() and kept and not member.name.startswith(_LEFT_OUT_FOLDERS):
                path = staging / inside
                path.parent.mkdir(parents=True, exist_ok=True)
                source = archive.extractfile(member)
                path.write_bytes(source.read() if source else b"")
    replace_folder(staging, folder)
    return folder
