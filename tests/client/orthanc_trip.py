"""Run in a network of its own: a CT is chosen from Orthanc, recognised, and its results are found in Orthanc again.

Debian's Orthanc listens on every address, so it gets a network where there is nobody else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx

from client.parts import FROM_PAGE, make_parts, open_client, quick_job, wait_for
from lung_d2.client.archive import Archive
from recognition.chests import write_chest

URL = "http://127.0.0.1:8042"


def trip(folder: Path) -> dict[str, object]:
    """Go the whole way, and return what was seen."""
    chest = write_chest(folder / "chest")
    archive = Archive(f"{URL}/dicom-web")
    archive.send(chest)
    with open_client(make_parts(folder, quick_job(folder), archive=archive)) as client:
        (study,) = client.get("/api/archive/studies").json()
        fetched = client.post(f"/api/archive/studies/{study['study']}/fetch", headers=FROM_PAGE).json()
        series = fetched["series"][0]
        job = client.post(f"/api/series/{series}/recognise", headers=FROM_PAGE).json()
        ended = wait_for(client, job["id"])
        sent = client.post(f"/api/series/{series}/send", headers=FROM_PAGE).json()
    found = httpx.get(f"{URL}/dicom-web/studies/{study['study']}/series", headers={"Accept": "application/dicom+json"})
    modalities = sorted(one["00080060"]["Value"][0] for one in found.json())
    return {
        "listed": study,
        "images": [fetched["images"], len(chest)],
        "state": ended["state"],
        "sent": sent,
        "modalities": modalities,
    }


def main() -> None:
    """Start Orthanc, go, and print what was seen."""
    folder = Path(sys.argv[1])
    plugins = [str(path) for path in Path("/usr/share/orthanc/plugins").glob("*DicomWeb*")]
    config = {
        "StorageDirectory": str(folder / "orthanc"),
        "IndexDirectory": str(folder / "orthanc"),
        "HttpPort": 8042,
        "DicomPort": 4242,
        "AuthenticationEnabled": False,
        "Plugins": plugins,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    command = ["Orthanc", str(folder / "orthanc.json")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as orthanc:
        try:
            for _ in range(200):
                try:
                    httpx.get(f"{URL}/system")
                    break
                except httpx.TransportError:
                    time.sleep(0.2)
            print(json.dumps(trip(folder)))
        finally:
            orthanc.terminate()


if __name__ == "__main__":
    main()
