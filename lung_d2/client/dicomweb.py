"""The store as a DICOMweb server (PS3.18), as far as a viewer needs one: QIDO-RS, WADO-RS of objects and frames."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
from fastapi import APIRouter, HTTPException, Response
from pydicom.encaps import generate_frames
from pydicom.uid import UID

from lung_d2.client.store import Store

_STUDY = (
    *("StudyDate", "StudyTime", "AccessionNumber", "StudyInstanceUID", "StudyID", "StudyDescription"),
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
)
_SERIES = ("Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime")
_BOUNDARY = "lung_d2_part"
Header = dict[str, Any]


def build_router(store: Store) -> APIRouter:
    """Build the routes under ``/dicom-web``.

    Args:
        store: What they serve.
    """
    router = APIRouter(prefix="/dicom-web")

    @router.get("/studies")
    def search_studies(StudyInstanceUID: str = "") -> Response:
        return _json(_describe_studies(store, StudyInstanceUID))

    @router.get("/studies/{study}/series")
    def search_series(study: str, SeriesInstanceUID: str = "") -> Response:
        found = [one for one in store.list_series(study) if SeriesInstanceUID in ("", one["series"])]
        return _json([_describe_series(one) for one in found])

    @router.get("/studies/{study}/series/{series}/metadata")
    @router.get("/studies/{study}/series/{series}/instances")
    def read_series(study: str, series: str) -> Response:
        return _json([_windowed(row) for row in store.find(study, series)])

    @router.get("/studies/{study}/metadata")
    def read_study(study: str) -> Response:
        return _json([_windowed(row) for row in store.find(study)])

    @router.get("/studies/{study}/series/{series}/instances/{sop}")
    def read_instance(study: str, series: str, sop: str) -> Response:
        data = _path(store, study, series, sop).read_bytes()
        return _multipart(data, "application/dicom", "application/dicom")

    @router.get("/studies/{study}/series/{series}/instances/{sop}/metadata")
    def read_metadata(study: str, series: str, sop: str) -> Response:
        return _json([_windowed(row) for row in store.find(study, series, sop)])

    @router.get("/studies/{study}/series/{series}/instances/{sop}/frames/{number}")
    def read_frame(study: str, series: str, sop: str, number: int) -> Response:
        data, syntax = _frame(_path(store, study, series, sop), number)
        kind = "application/octet-stream"
        return _multipart(data, kind, f"{kind}; transfer-syntax={syntax}")

    return router


def _windowed(row: sqlite3.Row) -> Header:
    """Return the header of an object; a CT opens in a lung window, whatever window the scanner proposed."""
    header: Header = json.loads(row["header"])
    if row["modality"] == "CT":
        header |= {"00281050": {"vr": "DS", "Value": [-600]}, "00281051": {"vr": "DS", "Value": [1500]}}
    return header


def _path(store: Store, study: str, series: str, sop: str) -> Path:
    rows = store.find(study, series, sop)
    if not rows:
        raise HTTPException(404, "no such object")
    return store.folder / rows[0]["path"]


def _frame(path: Path, number: int) -> tuple[bytes, str]:
    dataset = pydicom.dcmread(path)
    count = int(dataset.get("NumberOfFrames") or 1)
    if not 1 <= number <= count:
        raise HTTPException(404, "no such frame")
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if syntax.is_compressed and not syntax.is_deflated:
        frames: Iterator[bytes] = generate_frames(dataset.PixelData, number_of_frames=count)
        return next(frame for index, frame in enumerate(frames, start=1) if index == number), str(syntax)
    size = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8
    return dataset.PixelData[(number - 1) * size : number * size], pydicom.uid.ExplicitVRLittleEndian


def _describe_studies(store: Store, study: str) -> list[Header]:
    found: dict[str, Header] = {}
    for one in store.list_series(study):
        entry = found.setdefault(one["study"], _pick(one["header"], _STUDY))
        modalities = entry.setdefault("00080061", {"vr": "CS", "Value": []})["Value"]
        modalities.extend({one["modality"]} - set(modalities))
        for tag, more in (("00201206", 1), ("00201208", one["images"])):
            number = entry.setdefault(tag, {"vr": "IS", "Value": [0]})
            number["Value"][0] += more
    return list(found.values())


def _describe_series(one: Header) -> Header:
    return {**_pick(one["header"], _SERIES), "00201209": {"vr": "IS", "Value": [one["images"]]}}


def _pick(header: Header, keywords: tuple[str, ...]) -> Header:
    tags = [f"{pydicom.datadict.tag_for_keyword(keyword):08X}" for keyword in keywords]
    return {tag: header[tag] for tag in tags if tag in header}


def _json(content: Any) -> Response:
    return Response(json.dumps(content), media_type="application/dicom+json")


def _multipart(data: bytes, kind: str, part: str) -> Response:
    head = f"--{_BOUNDARY}\r\nContent-Type: {part}\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    body = head + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return Response(body, media_type=f'multipart/related; type="{kind}"; boundary={_BOUNDARY}')
