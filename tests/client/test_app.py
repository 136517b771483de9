"""The service as the page uses it, and as somebody misuses it."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pydicom
import pytest

from client.parts import FROM_PAGE, chest_zip, make_parts, make_zip, open_client, quick_job, send_zip, wait_for
from ct.dicom_files import make_slice, stored_slices, write
from lung_d2.client.uploads import Limits


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return quick_job(tmp_path_factory.mktemp("app"))


@pytest.fixture
def parts(job, tmp_path):
    return make_parts(tmp_path, job)


def test_study_is_dropped_recognised_and_downloaded(parts, tmp_path):
    with open_client(parts) as client:
        series = send_zip(client, chest_zip(tmp_path)).json()["series"][0]
        started = client.post(f"/api/series/{series}/recognise", headers=FROM_PAGE)
        assert started.status_code == 202
        assert wait_for(client, started.json()["id"])["state"] == "done"
        findings = client.get(f"/api/series/{series}/findings").json()
        names = [one["name"] for one in client.get(f"/api/series/{series}/files").json()]
        assert {"findings.json", "lesions.csv", "lesions.nii.gz", "report.html", "structured_report.dcm"} <= set(names)
        for name in names:
            answer = client.get(f"/api/series/{series}/files/{name}")
            assert answer.status_code == 200
            assert len(answer.content) > 0
        report = client.get(f"/api/series/{series}/files/report.html")
        assert "sandbox" in report.headers["content-security-policy"]
        assert json.loads(client.get(f"/api/series/{series}/files/findings.json").content) == findings


def test_files_are_dropped_without_an_archive(parts, tmp_path):
    files = []
    for index, stored in enumerate(stored_slices(3)):
        path = write(make_slice(stored, z=float(index)), tmp_path / f"{index}")
        files.append(("file", (f"../../{index}", path.read_bytes())))
    answer = open_client(parts).post("/api/upload", files=files, headers=FROM_PAGE)
    assert answer.json()["images"] == 3


def dicom(tmp_path, **tags):
    return write(make_slice(stored_slices(1)[0], **tags), tmp_path / "object").read_bytes()


def link_zip():
    entry = zipfile.ZipInfo("link")
    entry.external_attr = 0o120777 << 16
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    return packed.getvalue()


MR = {"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}
ZIP, DICOM = "application/zip", "application/dicom"
HOSTILE = {  # what is sent, as what, and the status
    "nothing": (lambda _: b"", ZIP, 422),
    "nothing as DICOM": (lambda _: b"", DICOM, 422),
    "text": (lambda _: b"hello", ZIP, 422),
    "text as DICOM": (lambda _: b"hello" * 99, DICOM, 422),
    "empty archive": (lambda _: make_zip({}), ZIP, 422),
    "folders only": (lambda _: make_zip({"a/": b"", "b/": b""}), ZIP, 422),
    "zip slip": (lambda path: make_zip({"../../a.dcm": dicom(path)}), ZIP, 422),
    "zip slip below": (lambda path: make_zip({"a/../../b.dcm": dicom(path)}), ZIP, 422),
    "absolute": (lambda path: make_zip({"/tmp/a.dcm": dicom(path)}), ZIP, 422),
    "drive": (lambda path: make_zip({"C:\\a.dcm": dicom(path)}), ZIP, 422),
    "backslashes": (lambda path: make_zip({"..\\..\\a.dcm": dicom(path)}), ZIP, 422),
    "good and evil": (lambda path: make_zip({"a.dcm": dicom(path), "../b.dcm": dicom(path)}), ZIP, 422),
    "symbolic link": (lambda _: link_zip(), ZIP, 422),
    "bomb": (lambda _: make_zip({"a": bytes(30 << 20)}), ZIP, 422),
    "many entries": (lambda _: make_zip({f"{n}": b"" for n in range(3000)}), ZIP, 422),
    "archive in archive": (lambda path: make_zip({"a.zip": make_zip({"a.dcm": dicom(path)})}), ZIP, 422),
    "cut archive": (lambda path: make_zip({"a.dcm": dicom(path)})[:-40], ZIP, 422),
    "archive as DICOM": (lambda path: make_zip({"a.dcm": dicom(path)}), DICOM, 422),
    "DICOM as archive": (lambda path: dicom(path), ZIP, 422),
    "markup in a name": (lambda _: make_zip({"<script>alert(1)</script>.html": b"<script>"}), ZIP, 422),
    "other modality": (lambda path: dicom(path, **MR), DICOM, 422),
    "markup in a modality": (lambda path: dicom(path, **MR | {"Modality": "<B>X"}), DICOM, 422),
    "cut header": (lambda path: dicom(path)[:300], DICOM, 422),
    "no pixels": (lambda path: dicom(path, PixelData=None), DICOM, 422),
    "no UIDs": (lambda path: dicom(path, SOPInstanceUID=None), DICOM, 422),
    "picture": (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(100), DICOM, 422),
    "program": (lambda _: b"\x7fELF" + bytes(100), ZIP, 422),
    "wrong content type": (lambda path: dicom(path), "text/html", 415),
    "no content type": (lambda path: dicom(path), "", 415),
    "broken form": (lambda _: b"--x\r\nno form", "multipart/form-data; boundary=x", 400),
    "form without boundary": (lambda _: b"no form", "multipart/form-data", 400),
    "too large": (lambda _: bytes(2 << 20), DICOM, 413),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_upload_gets_one_sentence_and_leaves_nothing(job, tmp_path, name):
    parts = make_parts(tmp_path, job, limits=Limits(upload_mb=1, unpacked_mb=20, files=1000))
    content, kind, status = HOSTILE[name]
    client = open_client(parts)
    answer = send_zip(client, content(tmp_path), kind)
    assert answer.status_code == status, answer.text
    sentence = answer.json()["error"]
    assert 10 < len(sentence) < 300
    assert "\n" not in sentence
    assert str(tmp_path) not in sentence
    assert "<" not in sentence
    assert list((tmp_path / "store" / "incoming").iterdir()) == []
    assert list((tmp_path / "store" / "objects").iterdir()) == []
    assert client.get("/api/studies").json() == []


@pytest.mark.parametrize(
    "path",
    [
        "/client/../app.py",
        "/client/%2e%2e/app.py",
        "/api/series/1.2/files/../../x",
        "/api/series/1.2/files/manifest.json",
        "/api/series/..%2f..%2f/findings",
        "/dicom-web/studies/1/series/2/instances/3",
        "/etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
    ],
)
def test_no_path_leads_out(parts, path):
    answer = open_client(parts).get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_viewer_is_served_as_it_is_but_for_its_config(job, tmp_path):
    viewer = tmp_path / "ohif"
    viewer.mkdir()
    (viewer / "index.html").write_text("<p>OHIF</p>")
    (viewer / "app-config.js").write_text("theirs")
    client = open_client(make_parts(tmp_path, job, viewer=viewer))
    assert "OHIF" in client.get("/viewer?StudyInstanceUIDs=1.2").text
    assert "dicom-web" in client.get("/app-config.js").text
    assert "root:" not in client.get("/%2e%2e/%2e%2e/%2e%2e/etc/passwd").text


def test_viewer_asks_the_store_as_dicomweb(parts, tmp_path):
    paths = [write(make_slice(stored, z=float(k)), tmp_path / f"{k}") for k, stored in enumerate(stored_slices(2))]
    data = make_zip({path.name: path.read_bytes() for path in paths})
    client = open_client(parts)
    send_zip(client, data)
    (study,) = client.get("/dicom-web/studies").json()
    assert study["00201208"]["Value"] == [2]
    uid = study["0020000D"]["Value"][0]
    (series,) = client.get(f"/dicom-web/studies/{uid}/series").json()
    base = f"/dicom-web/studies/{uid}/series/{series['0020000E']['Value'][0]}"
    headers = client.get(f"{base}/metadata").json()
    assert [one["00281050"]["Value"] for one in headers] == [[-600], [-600]]
    sop = headers[1]["00080018"]["Value"][0]
    frame = client.get(f"{base}/instances/{sop}/frames/1")
    head, _, body = frame.content.partition(b"\r\n\r\n")
    assert b"transfer-syntax=1.2.840.10008.1.2.1" in head
    pixels = body[: body.rindex(b"\r\n--")]
    assert np.array_equal(np.frombuffer(pixels, np.uint16).reshape(stored_slices(2)[1].shape), stored_slices(2)[1])
    whole = client.get(f"{base}/instances/{sop}").content.partition(b"\r\n\r\n")[2]
    assert pydicom.dcmread(io.BytesIO(whole[: whole.rindex(b"\r\n--")])).SOPInstanceUID == sop
    assert client.get(f"{base}/instances/{sop}/frames/2").status_code == 404


def test_two_users_and_a_full_queue(job, tmp_path):
    parts = make_parts(tmp_path, job, most=50)
    client = open_client(parts)  # the queue is not started: what is added waits
    series = []
    for number in range(51):
        path = write(make_slice(stored_slices(1)[0], SeriesInstanceUID=f"1.2.3.{number}"), tmp_path / f"{number}")
        series.append(send_zip(client, path.read_bytes(), DICOM).json()["series"][0])
    codes = [client.post(f"/api/series/{one}/recognise", headers=FROM_PAGE).status_code for one in series]
    assert codes == [202] * 50 + [503]
    other = open_client(parts, address="127.0.0.2").post(f"/api/series/{series[0]}/recognise", headers=FROM_PAGE)
    assert other.json()["id"] == 1
