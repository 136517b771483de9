"""Weights by name: the files that come with the package, and those in the user's own folder."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shlex
from pathlib import Path

from lung_d2.errors import CheckpointError

SCHEME = "lung_d2://"
"""With it a name or a path is an address that Detectron2's own classes load, as with ``detectron2://``."""
SUFFIX = ".safetensors"
FOLDER_VARIABLE = "LUNG_D2_WEIGHTS"
SHIPPED_FOLDER = Path(__file__).resolve().parents[2] / "weights"
SUMS_NAME = "SHA256SUMS"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def user_folder() -> Path:
    """Return the user's own folder of weights: ``$LUNG_D2_WEIGHTS``, else ``lung_d2/weights`` of the XDG data home."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named or Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share", "lung_d2/weights")).expanduser()


def list_weights() -> dict[str, Path]:
    """Return the file of each name; one that comes with the package hides the user's own of the same name."""
    found = [path for folder in (SHIPPED_FOLDER, user_folder()) for path in sorted(folder.glob(f"*{SUFFIX}"))]
    named = {path.stem: path for path in reversed(found) if _NAME.fullmatch(path.stem)}
    return dict(sorted(named.items()))


def find_weights(weights: str | os.PathLike[str]) -> Path | None:
    """Return the weights file that is meant.

    Args:
        weights: A path that ends in ``.safetensors``, or a name of :func:`list_weights`; with :data:`SCHEME` or not.
            A name is looked up among those, so that it never leads out of their folders.

    Returns:
        The file, which need not exist; None where weights of another kind are meant, as a ``.pth`` or an address.

    Raises:
        CheckpointError: :data:`SCHEME` stands before an unknown name.
    """
    text = os.fspath(weights)
    given = text.removeprefix(SCHEME)
    if given.endswith(SUFFIX) and "://" not in given:
        return Path(given)
    named = list_weights().get(given)
    if text.startswith(SCHEME) and named is None:
        raise _unknown(given)
    return None if Path(given).is_file() else named


def require_weights(weights: str | os.PathLike[str]) -> Path:
    """Return the path of the weights, which has to be that of a weights file.

    Raises:
        CheckpointError: Another kind of weights is meant, or the name does not exist.
    """
    path = find_weights(weights)
    if path is None:
        raise _unknown(os.fspath(weights))
    return path


def address_of(weights: str | os.PathLike[str]) -> str:
    """Return the address of a weights file for ``MODEL.WEIGHTS``, valid in any working folder and for Detectron2."""
    given = os.fspath(weights).removeprefix(SCHEME)
    return SCHEME + (os.path.abspath(given) if given.endswith(SUFFIX) else given)


def check_digest(path: Path) -> str:
    """Return the SHA-256 of a weights file.

    Raises:
        CheckpointError: It differs from the pinned one of a file that comes with the package, or from the one beside
            the file in ``NAME.safetensors.sha256``; the latter has no line of this name; or a file cannot be read.
    """
    shipped = path.resolve().parent == SHIPPED_FOLDER.resolve()
    sums = SHIPPED_FOLDER / SUMS_NAME if shipped else path.with_name(f"{path.name}.sha256")
    try:
        state = path.stat()
        found = _digest(path.resolve(), state.st_mtime_ns, state.st_size)
        pinned = _read_sums(sums).get(path.name) if shipped or sums.is_file() else found
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            path, found=f"cannot be read ({type(error).__name__})", remedy=f"check it and {sums}"
        ) from error
    if pinned is None and not shipped:
        raise CheckpointError(
            path,
            found=f"not named in {sums.name}: was the file renamed?",
            expected=f"a line of sha256sum with the name {path.name}",
            remedy=f"compare it with the SHA-256 of its source ({found}), and rewrite the line in its folder: "
            f"sha256sum {shlex.quote(path.name)} > {shlex.quote(sums.name)}",
        )
    if found != pinned:
        raise CheckpointError(
            path,
            found=f"SHA-256 {found[:16]}...",
            expected=f"{pinned[:16]}..., as {sums.name} says" if pinned else f"a line for it in {sums}",
            remedy="get the file from its source again",
        )
    return found


@functools.lru_cache(maxsize=8)
def _digest(path: Path, changed_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_sums(path: Path) -> dict[str, str]:
    """Read what ``sha256sum`` wrote: the digest of each file name."""
    lines = (_SUM_LINE.fullmatch(line.strip()) for line in path.read_text("utf-8").splitlines())
    return {line[2]: line[1] for line in lines if line}


def _unknown(given: str) -> CheckpointError:
    names = ", ".join(list_weights()) or "none yet"
    return CheckpointError(
        given,
        found="no weights of this name",
        expected=f"a file that ends in {SUFFIX}, or one of the names: {names}",
        remedy=f"put the file into {user_folder()}, or for a .pth give its config too",
    )
