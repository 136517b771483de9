"""What a person does, in a real browser: drop, recognise, look at the lesions over the CT, download."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cv2
import httpx
import numpy as np
import pydicom
import pytest

from lung_d2.client.viewer import find_viewer

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--enable-unsafe-swiftshader"),
)
SLICES = range(45, 53)  # around the clearest opacity of the series
OPACITY_BGR = np.array((0, 159, 230))  # of a SEG's opacity; see lung_d2.categories

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(data_root, tmp_path_factory):
    files = (data_root / "ct_series" / "ggo_case").iterdir()
    ordered = sorted(
        files, key=lambda path: float(pydicom.dcmread(path, specific_tags=["SliceLocation"]).SliceLocation)
    )
    packed = tmp_path_factory.mktemp("study") / "study.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for index in SLICES:
            archive.write(ordered[index], f"study/{index}.dcm")
    return packed


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    if shutil.which("chromium") is None:
        pytest.skip("no chromium: install Debian's chromium")
    pytest.importorskip("playwright", reason="no playwright: bash tools/setup.sh --client")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    store = tmp_path_factory.mktemp("client") / "store"
    command = [sys.executable, "tools/serve.py", "--weights", "mask_rcnn_R_50_FPN_both", "--no-token"]
    command += ["--port", str(port), "--store", str(store)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as service:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                httpx.get(url)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        yield url
        service.terminate()


@pytest.fixture
def page(address):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.set_default_timeout(240_000)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        yield page
        assert [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []
        browser.close()


def coloured(page, path):
    """Count the pixels of the viewer in the colour of an opacity."""
    page.locator("#viewer").screenshot(path=path)
    picture = cv2.imread(str(path)).astype(int)
    hue = picture[..., 2] - picture[..., 0]
    return int(((hue > 60) & (picture[..., 1] > picture[..., 0] + 20)).sum())


def test_study_is_dropped_recognised_looked_at_and_downloaded(page, study, address, tmp_path):
    page.set_input_files("#files", study)
    page.click("#studies button")
    page.get_by_role("button", name="Recognise").click()
    page.wait_for_selector("#body tr")
    series = httpx.get(f"{address}/api/studies").json()[0]["series"]
    uid = next(one["series"] for one in series if one["modality"] == "CT")
    lesion = httpx.get(f"{address}/api/series/{uid}/findings").json()["lesions"][0]
    cells = page.locator("#body tr").first.locator("td").all_inner_texts()
    assert cells[0] == str(lesion["number"])
    assert cells[1] == lesion["category"].replace("_", " ")
    assert cells[2:5] == [f"{lesion['score']:.2f}", f"{lesion['volume_ml']:.2f}", str(round(lesion["mean_hu"]))]
    for name in [one["name"] for one in httpx.get(f"{address}/api/series/{uid}/files").json() if ".dcm" in one["name"]]:
        content = httpx.get(f"{address}/api/series/{uid}/files/{name}").content
        assert pydicom.dcmread(io.BytesIO(content)).Modality in ("SEG", "SR")
        if shutil.which("dciodvfy"):
            (tmp_path / name).write_bytes(content)
            said = subprocess.run(["dciodvfy", str(tmp_path / name)], capture_output=True, text=True, check=False)
            assert "Error" not in said.stderr
    if find_viewer() is None:
        assert page.locator("#slices img").count() > 0
        pytest.skip("no OHIF: bash tools/setup.sh --client; the slices were shown instead")
    segmentations = sum(one["modality"] == "SEG" for one in httpx.get(f"{address}/api/studies").json()[0]["series"])
    shown = "document.getElementById('viewer').contentWindow"
    viewport = f"{shown}.services?.viewportGridService?.getActiveViewportId?.()"
    drawn = f"{shown}.services?.segmentationService?.getSegmentationRepresentations({viewport})?.length ?? 0"
    for _ in range(240):  # the policy of the page forbids what Playwright waits with
        if page.evaluate(drawn) == segmentations:
            break
        page.wait_for_timeout(500)
    assert page.evaluate(drawn) == segmentations
    before = current_slice(page)
    row = page.locator("#body tr").nth(0 if before != lesion["key_slice_index"] else 1)
    row.click()
    page.wait_for_timeout(4000)
    number = int(row.locator("td").last.inner_text())
    assert current_slice(page) == number
    assert coloured(page, tmp_path / "viewer.png") > 200
    labels = page.evaluate(f"{shown}.services.segmentationService.getSegmentations().map((one) => one.label)")
    assert any("Ground glass opacity" in label for label in labels)


def current_slice(page):
    """Return the slice that the viewer shows, counted from the lowest."""
    shown = "document.getElementById('viewer').contentWindow"
    viewport = f"{shown}.services.cornerstoneViewportService.getCornerstoneViewport('default')"
    index = page.evaluate(f"{viewport}.getCurrentImageIdIndex()")
    first_is_low = page.evaluate(
        f"(() => {{ const v = {viewport}; const z = (id) => {shown}.cornerstone.metaData.get('imagePlaneModule', id)"
        ".imagePositionPatient[2]; const ids = v.getImageIds(); return z(ids[0]) < z(ids[ids.length - 1]); })()"
    )
    return index if first_is_low else len(SLICES) - 1 - index


def test_page_works_with_the_keyboard_and_on_a_narrow_window(page):
    page.set_viewport_size({"width": 420, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= 420")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "folder"
