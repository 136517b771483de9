"""Tokens, hosts, forged requests, headers, and what the log holds."""

from __future__ import annotations

import json

import pytest

from client.parts import FROM_PAGE, chest_zip, make_parts, open_client, quick_job, send_zip
from lung_d2.client.security import COOKIE, Guard, is_loopback
from lung_d2.errors import ConfigError

TOKEN = "a-long-token-that-nobody-guesses"
PATHS = ["/", "/client/", "/client/client.js", "/api/studies", "/api/jobs", "/dicom-web/studies", "/viewer", "/x"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("security")
    return make_parts(folder, quick_job(folder))


def guarded(parts, address="10.0.0.7"):
    return open_client(parts, Guard.of("0.0.0.0", TOKEN, 1.0), address)


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("pc", False)]
)
def test_loopback(host, expected):
    assert is_loopback(host) == expected


def test_other_addresses_need_a_token():
    with pytest.raises(ConfigError, match="token"):
        Guard.of("0.0.0.0", "", 1.0)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_without_a_token_nothing_but_401(parts, method):
    client = guarded(parts)
    answers = {path: client.request(method, path, headers=FROM_PAGE, follow_redirects=False) for path in PATHS}
    assert {answer.status_code for answer in answers.values()} == {401}
    assert all("lung" not in answer.text for answer in answers.values())


def test_token_in_the_address_becomes_a_cookie(parts):
    client = guarded(parts)
    answer = client.get(f"/?token={TOKEN}", follow_redirects=False)
    assert answer.status_code == 303
    assert TOKEN not in answer.headers["location"]
    cookie = answer.headers["set-cookie"]
    assert all(flag in cookie for flag in ("HttpOnly", "SameSite=strict", "Path=/"))
    assert client.get("/api/studies").status_code == 200
    assert client.get("/api/studies", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_wrong_tokens_are_limited_and_logged(parts, tmp_path):
    client = guarded(parts, "10.0.0.8")
    codes = [client.get("/api/studies", cookies={COOKIE: f"wrong{n}"}).status_code for n in range(12)]
    assert codes[:10] == [401] * 10
    assert codes[10:] == [429] * 2
    assert (
        guarded(parts, "10.0.0.9").get("/api/studies", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    )


@pytest.mark.parametrize(
    "headers", [{}, {**FROM_PAGE, "Origin": "http://evil.example"}, {"Origin": "http://127.0.0.1:8742"}]
)
def test_forged_requests_are_refused(parts, headers):
    client = open_client(parts)
    assert client.post("/api/series/1.2.3/recognise", headers=headers).status_code == 403
    assert client.delete("/api/studies/1.2.3", headers=headers).status_code == 403


def test_upload_of_unknown_size_is_refused(parts):
    answer = open_client(parts).post("/api/upload", content=iter([b"1"]), headers=FROM_PAGE)
    assert answer.status_code == 411


def test_own_page_may_ask(parts):
    headers = {**FROM_PAGE, "Origin": "http://127.0.0.1:8742"}
    assert open_client(parts).post("/api/series/1.2.3/recognise", headers=headers).status_code == 404


def test_other_names_of_this_machine_are_refused(parts):
    assert open_client(parts).get("/api/studies", headers={"Host": "evil.example"}).status_code == 400


def test_page_loads_nothing_from_elsewhere_and_runs_no_inline_script(parts):
    policy = open_client(parts).get("/client/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_audit_log_names_nobody(tmp_path):
    parts = make_parts(tmp_path, quick_job(tmp_path))
    client = open_client(parts)
    sent = send_zip(client, chest_zip(tmp_path, PatientName="PLANTED^NAME", PatientID="PLANTED-7"))
    assert sent.status_code == 200, sent.text
    listed = client.get("/api/studies").text
    study = client.get("/api/studies").json()[0]["study"]
    assert "PLANTED" in client.get(f"/api/studies/{study}").text
    client.delete(f"/api/studies/{study}", headers=FROM_PAGE)
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["action"] for line in lines] == ["upload", "remove"]
    assert study not in (tmp_path / "audit.jsonl").read_text()
    assert "PLANTED" not in listed + (tmp_path / "audit.jsonl").read_text()
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o77 == 0
