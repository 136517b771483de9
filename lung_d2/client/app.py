"""The web service: the page, its JSON routes, the DICOMweb of the store, and the viewer beside it."""

from __future__ import annotations

import contextlib
import logging
import mimetypes
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException

from lung_d2.client.archive import Archive, ArchiveError
from lung_d2.client.dicomweb import build_router
from lung_d2.client.jobs import DONE, Job, Jobs, QueueFullError
from lung_d2.client.security import REPORT_POLICY, VIEWER_POLICY, Audit, Guard
from lung_d2.client.store import Store, Stored, show_uid_text
from lung_d2.client.uploads import Limits, unpack_zip
from lung_d2.errors import InputError, LungD2Error
from lung_d2.findings.document import FINDINGS_NAME

logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
DOWNLOADS = re.compile(
    r"(findings\.json|lesions\.(csv|nii\.gz)|report\.html|structured_report\.dcm|segmentation_\w+\.dcm)"
)
_OVERLAYS = re.compile(r"[\w-]+\.png")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Parts:
    """What the routes work with.

    Attributes:
        store: The studies at hand.
        jobs: The queue.
        archive: Where studies can be chosen from and results go; None: there is none.
        viewer: Folder of OHIF's ``dist``; None: the page shows key slices alone.
        audit: The log of what is done.
        limits: Of an upload.
    """

    store: Store
    jobs: Jobs
    archive: Archive | None
    viewer: Path | None
    audit: Audit
    limits: Limits


def build_app(parts: Parts, guard: Guard) -> FastAPI:
    """Build the service.

    Args:
        parts: What it works with; the queue starts and ends with the service.
        guard: What every request passes.
    """

    @contextlib.asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        parts.jobs.start()
        yield
        await run_in_threadpool(parts.jobs.stop)

    app = FastAPI(title="lung_d2", docs_url=None, redoc_url=None, openapi_url=None, lifespan=run)
    guard.install(app, parts.audit)
    _add_errors(app)
    _add_studies(app, parts)
    _add_jobs(app, parts)
    _add_archive(app, parts)
    app.include_router(build_router(parts.store))
    _add_pages(app, parts)
    return app


def _add_errors(app: FastAPI) -> None:
    codes = {QueueFullError: 503, ArchiveError: 502, InputError: 422}

    @app.exception_handler(LungD2Error)
    async def tell(request: Request, error: LungD2Error) -> Response:
        return JSONResponse({"error": str(error)}, codes.get(type(error), 404))

    @app.exception_handler(StarletteHTTPException)
    async def tell_status(request: Request, error: StarletteHTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code)

    @app.exception_handler(RequestValidationError)
    async def tell_wrong(request: Request, error: RequestValidationError) -> Response:
        return JSONResponse({"error": "the request is not one that the page makes"}, 400)


def _add_studies(app: FastAPI, parts: Parts) -> None:
    @app.post("/api/upload")
    async def upload(request: Request) -> dict[str, Any]:
        with parts.store.staging() as folder:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "multipart/form-data":
                paths: Iterator[Path] = iter(await _save_form(request, folder, parts.limits))
            elif kind in ("application/zip", "application/x-zip-compressed"):
                archive = await _save_body(request, folder / "archive", parts.limits)
                paths = unpack_zip(archive, folder, parts.limits)
            elif kind == "application/dicom":
                paths = iter([await _save_body(request, folder / "object", parts.limits)])
            else:
                raise HTTPException(415, "give a ZIP file, DICOM files, or a folder of them")
            stored = await run_in_threadpool(_take_whole, parts.store, folder, paths)
        parts.audit.write("upload", request, parts.store.find(series=stored.series[0])[0]["study"])
        return {"series": stored.series, "images": stored.images, "skipped": stored.skipped, "renamed": stored.renamed}

    @app.get("/api/studies")
    def list_studies() -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for one in parts.store.list_series():
            entry = found.setdefault(
                one["study"], {**_describe_study(one["header"]), "study": one["study"], "series": []}
            )
            # A description that somebody typed may hold a name: it is shown on the page of the study alone.
            entry["series"].append({**_describe_series(one, parts.jobs), "description": ""})
        return list(found.values())

    @app.get("/api/studies/{study}")
    def show_study(study: str) -> dict[str, Any]:
        series = parts.store.list_series(study)
        if not series:
            raise HTTPException(404, "no such study")
        patient = show_uid_text(series[0]["header"], "PatientName"), show_uid_text(series[0]["header"], "PatientID")
        renamed = sum(one["renamed"] for one in series)
        described = {**_describe_study(series[0]["header"]), "patient": patient[0], "patient_id": patient[1]}
        return {**described, "renamed": renamed, "series": [_describe_series(one, parts.jobs) for one in series]}

    @app.delete("/api/studies/{study}")
    def remove_study(study: str, request: Request) -> dict[str, str]:
        parts.jobs.remove_study(study)
        parts.audit.write("remove", request, study)
        return {"removed": study}


def _take_whole(store: Store, folder: Path, paths: Iterator[Path]) -> Stored:
    # All files of a request are checked before the first is stored: a refused archive leaves nothing behind.
    return store.add(list(paths))


async def _save_body(request: Request, path: Path, limits: Limits) -> Path:
    size = 0
    with open(path, "wb") as file:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limits.upload_mb * _CHUNK:
                raise HTTPException(413, f"too large: at most {limits.upload_mb:g} MB in one upload")
            file.write(chunk)
    return path


async def _save_form(request: Request, folder: Path, limits: Limits) -> list[Path]:
    paths = []
    async with request.form(max_files=limits.files, max_fields=10) as form:
        for number, (_, part) in enumerate(form.multi_items()):
            if isinstance(part, UploadFile):
                path = folder / f"{number:06d}"
                with open(path, "wb") as file:
                    while chunk := await part.read(_CHUNK):
                        file.write(chunk)
                paths.append(path)
    return paths


def _add_jobs(app: FastAPI, parts: Parts) -> None:
    @app.post("/api/series/{series}/recognise", status_code=202)
    def recognise(series: str, request: Request) -> dict[str, Any]:
        job = parts.jobs.add(series)
        parts.audit.write("recognise", request, job.study)
        return _describe_job(job)

    @app.get("/api/jobs")
    def list_jobs() -> list[dict[str, Any]]:
        return [_describe_job(job) for job in parts.jobs.list()[:100]]

    @app.post("/api/jobs/{number}/cancel")
    def cancel(number: int, request: Request) -> dict[str, Any]:
        job = parts.jobs.cancel(number)
        parts.audit.write("cancel", request, job.study)
        return _describe_job(job)

    @app.get("/api/series/{series}/findings")
    def show_findings(series: str) -> Response:
        text = (_result(parts, series) / FINDINGS_NAME).read_text()
        return Response(text, media_type="application/json")

    @app.get("/api/series/{series}/files")
    def list_files(series: str) -> list[dict[str, Any]]:
        files = sorted(path for path in _result(parts, series).iterdir() if DOWNLOADS.fullmatch(path.name))
        return [{"name": path.name, "bytes": path.stat().st_size} for path in files]

    @app.get("/api/series/{series}/files/{name}")
    def download(series: str, name: str, request: Request) -> Response:
        if not DOWNLOADS.fullmatch(name):
            raise HTTPException(404, "no such file")
        parts.audit.write("download", request, parts.jobs.list(series)[0].study)
        page = name == "report.html"
        headers = {"Content-Security-Policy": REPORT_POLICY} if page else {}
        shown = "inline" if page else "attachment"
        return _file(_result(parts, series) / name, headers, filename=name, content_disposition_type=shown)

    @app.get("/api/series/{series}/files/overlays/{name}")
    @app.get("/api/series/{series}/overlays/{name}")
    def show_overlay(series: str, name: str) -> Response:
        if not _OVERLAYS.fullmatch(name):
            raise HTTPException(404, "no such file")
        return _file(_result(parts, series) / "overlays" / name, {})

    @app.get("/api/series/{series}/overlays")
    def list_overlays(series: str) -> list[str]:
        return sorted(path.name for path in (_result(parts, series) / "overlays").glob("*.png"))


def _file(path: Path, headers: dict[str, str], **options: Any) -> Response:
    if not path.is_file():
        raise HTTPException(404, "no such file")
    return FileResponse(path, headers=headers, **options)


def _result(parts: Parts, series: str) -> Path:
    done = (job for job in parts.jobs.list(series) if job.state == DONE)
    folder = next(filter(None, map(parts.jobs.result_of, done)), None)
    if folder is None:
        raise HTTPException(404, "this series is not recognised yet")
    return folder


def _add_archive(app: FastAPI, parts: Parts) -> None:
    def archive() -> Archive:
        if parts.archive is None:
            raise HTTPException(404, "no archive: start with --archive DICOMWEB_URL")
        return parts.archive

    @app.get("/api/archive/studies")
    def search(text: str = "") -> list[dict[str, Any]]:
        return archive().search(text)

    @app.post("/api/archive/studies/{study}/fetch")
    def fetch(study: str, request: Request) -> dict[str, Any]:
        with parts.store.staging() as folder:
            stored = parts.store.add(list(archive().fetch(study, folder)))
        parts.audit.write("fetch", request, study)
        return {"series": stored.series, "images": stored.images}

    @app.post("/api/series/{series}/send")
    def send(series: str, request: Request) -> dict[str, Any]:
        folder = _result(parts, series)
        paths = [*sorted(folder.glob("segmentation_*.dcm")), *folder.glob("structured_report.dcm")]
        if not paths:
            raise HTTPException(404, "there is nothing to send: no lesion was found")
        archive().send(paths)
        parts.audit.write("send", request, parts.jobs.list(series)[0].study)
        return {"sent": len(paths)}


def _add_pages(app: FastAPI, parts: Parts) -> None:
    @app.get("/")
    def start() -> Response:
        return RedirectResponse("/client/")

    @app.get("/api/about")
    def about() -> dict[str, Any]:
        return {"viewer": parts.viewer is not None, "archive": parts.archive is not None}

    @app.get("/client/{name:path}")
    def page(name: str) -> Response:
        path = STATIC / (name or "index.html")
        if path.parent != STATIC or not path.is_file():
            raise HTTPException(404, "no such page")
        return FileResponse(path)

    @app.get("/{name:path}")
    def viewer(name: str) -> Response:
        """Serve OHIF, which must lie at the root and takes every path without a file for one of its pages."""
        if parts.viewer is None or name.startswith(("api/", "dicom-web/")):
            raise HTTPException(404, "no such page")
        headers = {"Content-Security-Policy": VIEWER_POLICY}
        if name == "app-config.js":
            return FileResponse(STATIC / "ohif-config.js", headers=headers, media_type="text/javascript")
        path = (parts.viewer / name).resolve()
        if not path.is_file() or not path.is_relative_to(parts.viewer.resolve()):
            path = parts.viewer / "index.html"
        return FileResponse(path, headers=headers, media_type=mimetypes.guess_type(path.name)[0])


def _describe_study(header: dict[str, Any]) -> dict[str, str]:
    date = show_uid_text(header, "StudyDate")
    return {"date": date, "description": show_uid_text(header, "StudyDescription")}


def _describe_series(one: dict[str, Any], jobs: Jobs) -> dict[str, Any]:
    own = jobs.list(one["series"])
    return {
        "series": one["series"],
        "modality": one["modality"],
        "images": one["images"],
        "description": show_uid_text(one["header"], "SeriesDescription"),
        "of": _referenced(one["header"]),
        "job": _describe_job(own[0]) if own else None,
    }


def _referenced(header: dict[str, Any]) -> str:
    """Return the UID of the series that a SEG refers to (PS3.3 C.12.4)."""
    items = header.get("00081115", {}).get("Value") or [{}]
    return show_uid_text(items[0], "SeriesInstanceUID")


def _describe_job(job: Job) -> dict[str, Any]:
    left = job.seconds_left
    return {
        **{name: getattr(job, name) for name in ("id", "series", "study", "state", "done", "total", "error")},
        "seconds_left": None if left is None else round(left),
    }
