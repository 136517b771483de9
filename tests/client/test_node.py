"""A router sends CT with dcmtk's storescu, and a peer, dcmtk's storescp, gets SEG and SR."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest

from lung_d2.client.node import Address
from lung_d2.errors import ConfigError
from recognition.chests import write_chest, write_model

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("storescu", "storescp", "dciodvfy")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("A:104", Address("A", "127.0.0.1", 104)), ("PACS@10.0.0.2:11112", Address("PACS", "10.0.0.2", 11112))],
)
def test_address(text, expected):
    assert Address.parse(text) == expected


@pytest.mark.parametrize("text", ["A", "A:0", "A:70000", "@h:104", "a title that is too long:104", "A@h"])
def test_wrong_address(text):
    with pytest.raises(ConfigError, match="AETITLE"):
        Address.parse(text)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait(done, seconds=240.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return
        time.sleep(0.2)
    raise TimeoutError


def answers(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_received_series_is_recognised_and_its_results_are_sent_on(tmp_path):
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        pytest.skip(f"no {', '.join(missing)}: install Debian's dcmtk and dicom3tools")
    (tmp_path / "model").mkdir()
    config, weights = write_model(tmp_path / "model")
    write_chest(tmp_path / "chest")
    (tmp_path / "received").mkdir()
    web, node, peer = free_ports(3)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    serve = [
        sys.executable,
        "tools/serve.py",
        "--config-file",
        config,
        "--weights",
        weights,
        "--store",
        tmp_path / "store",
    ]
    serve += ["--port", web, "--dicom-node", f"LUNG:{node}", "--dicom-peer", f"PEER@127.0.0.1:{peer}", "--quiet-s", 1]
    scp = ["storescp", "-aet", "PEER", "-od", tmp_path / "received", peer]
    with (
        subprocess.Popen(
            list(map(str, serve)), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        ) as service,
        subprocess.Popen(list(map(str, scp)), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as receiver,
    ):
        try:
            wait(lambda: answers(node) and answers(peer))
            send = ["storescu", "-aec", "LUNG", "+sd", "127.0.0.1", str(node), str(tmp_path / "chest")]
            subprocess.run(send, check=True, capture_output=True, timeout=60)
            wait(lambda: list((tmp_path / "received").glob("SR*")))
        finally:
            service.terminate()
            receiver.terminate()
        said = service.stderr.read() if service.stderr else ""
    assert "PLANTED" not in said
    (report,) = (tmp_path / "received").glob("SR*")
    assert pydicom.dcmread(report).Modality == "SR"
    checked = subprocess.run(["dciodvfy", str(report)], capture_output=True, text=True, check=False)
    assert "Error" not in checked.stderr
