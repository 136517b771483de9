"""What the tests of the client share: a series to send, a model that is quick, and a service in this process."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from lung_d2.client.app import Parts, build_app
from lung_d2.client.jobs import Jobs
from lung_d2.client.security import CSRF_HEADER, Audit, Guard
from lung_d2.client.store import Store
from lung_d2.client.uploads import Limits
from lung_d2.recognition.job import ModelChoice, RecognitionJob
from recognition.chests import write_chest, write_model

FROM_PAGE = {CSRF_HEADER: "1"}


def make_zip(files: Mapping[str, bytes]) -> bytes:
    """Pack files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def chest_zip(folder: Path, **tags: Any) -> bytes:
    """Write a small chest CT and pack it."""
    return make_zip({f"study/{path.name}": path.read_bytes() for path in write_chest(folder / "chest", **tags)})


def quick_job(folder: Path) -> RecognitionJob:
    """Return a recognition by an untrained tiny model, with results under ``folder``."""
    (folder / "model").mkdir()
    config, weights = write_model(folder / "model")
    return RecognitionJob(ModelChoice(config, ("MODEL.WEIGHTS", str(weights))), folder / "store" / "results")


def make_parts(folder: Path, job: RecognitionJob, **more: Any) -> Parts:
    """Build what the routes work with."""
    store = Store(folder / "store")
    jobs = Jobs(store, job, "model", most=more.pop("most", 100))
    given = {"archive": None, "viewer": None, "limits": Limits(), **more}
    return Parts(store=store, jobs=jobs, audit=Audit(folder / "audit.jsonl"), **given)


def open_client(parts: Parts, guard: Guard | None = None, address: str = "127.0.0.1") -> TestClient:
    """Open the service in this process, as a browser on an address."""
    app = build_app(parts, guard or Guard.of("127.0.0.1", "", 1.0))
    return TestClient(app, base_url="http://127.0.0.1:8742", client=(address, 50_000), raise_server_exceptions=False)


def send_zip(client: TestClient, content: bytes, kind: str = "application/zip") -> Any:
    """Upload as the page does."""
    return client.post("/api/upload", content=content, headers={**FROM_PAGE, "Content-Type": kind})


def wait_for(client: TestClient, number: int, seconds: float = 240.0) -> dict[str, Any]:
    """Wait until a job ends, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        job = next(one for one in client.get("/api/jobs").json() if one["id"] == number)
        if job["state"] not in ("queued", "running"):
            return job
        time.sleep(0.1)
    raise TimeoutError(json.dumps(job))
