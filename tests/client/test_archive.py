"""Studies come from a DICOMweb archive, and results go back; the archive is a real Orthanc."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lung_d2.client.archive import Archive, ArchiveError

TESTS = Path(__file__).resolve().parents[1]


def test_archive_that_does_not_answer():
    with pytest.raises(ArchiveError, match="no answer"):
        Archive("http://127.0.0.1:9/dicom-web").search()


def test_from_and_to_orthanc(tmp_path):
    if shutil.which("Orthanc") is None or not list(Path("/usr/share/orthanc/plugins").glob("*DicomWeb*")):
        pytest.skip("no Orthanc: install Debian's orthanc and orthanc-dicomweb")
    network = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if shutil.which("ip") is None or subprocess.run([*network, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network of its own can be made: it needs root, and Debian's iproute2")
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}", "OMP_NUM_THREADS": "1"}
    command = [*network, sys.executable, str(TESTS / "client" / "orthanc_trip.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["state"] == "done"
    assert seen["images"][0] == seen["images"][1]
    assert seen["sent"]["sent"] >= 1
    assert {"CT", "SR"} <= set(seen["modalities"])
    assert "PLANTED" not in json.dumps({**seen["listed"], "description": ""})
