"""An archive that speaks DICOMweb, as Orthanc does: studies are chosen from it, and results go back to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient

from lung_d2.errors import LungD2Error

_MOST_STUDIES = 200


class ArchiveError(LungD2Error):
    """The archive does not answer, or refuses."""


class Archive:
    """A DICOMweb server.

    Args:
        url: Its address, as ``http://localhost:8042/dicom-web``; it may hold a user name and a password.
    """

    def __init__(self, url: str) -> None:
        self._client = DICOMwebClient(url)
        self._client.set_http_retry_params(retry=False)

    def search(self, text: str = "") -> list[dict[str, Any]]:
        """Return its CT studies: UID, date, description, number of series; never a name.

        Args:
            text: Only the study of this UID, or the studies of this date (YYYYMMDD).
        """
        key = "StudyInstanceUID" if "." in text else "StudyDate"
        filters = {"ModalitiesInStudy": "CT", **({key: text} if text else {})}
        with _told():
            found = self._client.search_for_studies(search_filters=filters, limit=_MOST_STUDIES)
        return [
            {
                "study": _value(one, "0020000D"),
                "date": _value(one, "00080020"),
                "description": _value(one, "00081030"),
                "series": _value(one, "00201206"),
            }
            for one in found
        ]

    def fetch(self, study: str, folder: Path) -> Iterator[Path]:
        """Write the CT images of a study to a folder, in whatever transfer syntax they are stored."""
        with _told():
            series = self._client.search_for_series(study, search_filters={"Modality": "CT"})
            for one in series:
                uid = _value(one, "0020000E")
                syntaxes = (("application/dicom", "*"),)
                images = self._client.iter_series(study, uid, media_types=syntaxes)
                for number, image in enumerate(images):
                    path = folder / f"{len(list(folder.iterdir())):06d}-{number:06d}"
                    image.save_as(path, enforce_file_format=True)
                    yield path

    def send(self, paths: list[Path]) -> None:
        """Store objects in the archive (STOW-RS)."""
        with _told():
            self._client.store_instances([pydicom.dcmread(path) for path in paths])


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except requests.RequestException as error:
        code = getattr(error.response, "status_code", None)
        found = f"answer {code}" if code else "no answer"
        raise ArchiveError("archive", found=found, remedy="check its address, or try again later") from error


def _value(entry: dict[str, Any], tag: str) -> str:
    values = entry.get(tag, {}).get("Value") or [""]
    return str(values[0])
