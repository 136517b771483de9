"""Who may ask for what: the token, the host, forged requests, what a page may load, and the audit log."""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from lung_d2.errors import ConfigError
from lung_d2.files import hash_identity

COOKIE = "lung_d2_token"
CSRF_HEADER = "X-Lung-D2"
"""A header that no form and no foreign page can send without the browser asking first."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; sandbox"
VIEWER_POLICY = (  # OHIF decodes in WebAssembly, in workers made of blobs; nothing outside is reached
    "default-src 'self' blob: data:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_FAILURES, _WINDOW_S = 10, 60.0
Next = Callable[[Request], Awaitable[Response]]


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Audit:
    """One JSON line for each thing done: when, from where, what, on which study; never a name.

    Args:
        path: The file; only its owner may read it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8")

    def write(self, action: str, request: Request | None = None, study: str = "") -> None:
        """Add a line."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "address": request.client.host if request and request.client else "local",
            "action": action,
            "study": hash_identity("study", study) if study else "",
        }
        with self._lock:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()


@dataclass(frozen=True)
class Guard:
    """What every request passes.

    Attributes:
        token: What a request must bring; empty: nothing, on a loopback address alone.
        hosts: Names by which the service may be called; a page of another name that resolves to it is refused.
            Empty: any.
        max_bytes: Largest body of a request.
    """

    token: str
    hosts: frozenset[str]
    max_bytes: int

    @classmethod
    def of(cls, host: str, token: str, max_mb: float, names: Iterable[str] = ()) -> Guard:
        """Build the guard for an address to listen on.

        Args:
            host: The address.
            token: What a request must bring.
            max_mb: Largest body of a request.
            names: Further host names, as that of a proxy.

        Raises:
            ConfigError: The address is reached from other machines, and there is no token.
        """
        if is_loopback(host):
            return cls(token, frozenset({"localhost", "127.0.0.1", "::1", host, *names}), int(max_mb * 2**20))
        if not token:
            raise ConfigError("--host", found=host, expected="a token with it", remedy="leave --no-token out")
        return cls(token, frozenset(), int(max_mb * 2**20))

    def install(self, app: FastAPI, audit: Audit) -> None:
        """Put the guard before all routes of an app."""
        failures: dict[str, deque[float]] = defaultdict(deque)

        @app.middleware("http")
        async def check(request: Request, call_next: Next) -> Response:
            refusal = self._refuse(request, failures, audit)
            response = refusal or await call_next(request)
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            response.headers.setdefault("Content-Security-Policy", PAGE_POLICY)
            return response

    def _refuse(self, request: Request, failures: dict[str, deque[float]], audit: Audit) -> Response | None:
        if self.token:
            refusal = self._check_token(request, failures, audit)
            if refusal is not None:
                return refusal
        if self.hosts and request.url.hostname not in self.hosts:
            return _answer(400, "this service is not known by that host name")
        if request.method not in ("GET", "HEAD"):
            origin = urlsplit(request.headers.get("origin", "")).netloc
            if CSRF_HEADER not in request.headers or (origin and origin != request.headers.get("host")):
                return _answer(403, f"the request does not come from the page: it needs the header {CSRF_HEADER}")
            if "transfer-encoding" in request.headers:
                return _answer(411, "say how large the upload is: Content-Length is missing")
            length = request.headers.get("content-length", "0")
            if not length.isdigit() or int(length) > self.max_bytes:
                return _answer(413, f"too large: at most {self.max_bytes >> 20} MB in one upload")
        return None

    def _check_token(self, request: Request, failures: dict[str, deque[float]], audit: Audit) -> Response | None:
        address = request.client.host if request.client else ""
        recent = failures[address]
        while recent and recent[0] < time.monotonic() - _WINDOW_S:
            recent.popleft()
        if len(recent) >= _FAILURES:
            return _answer(429, "too many wrong tokens: wait a minute")
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = bearer or request.cookies.get(COOKIE, "") or request.query_params.get("token", "")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            if given:
                recent.append(time.monotonic())
                audit.write("wrong token", request)
            return _answer(401, "open the address that was printed at the start: it holds the token")
        if request.method == "GET" and "token" in request.query_params:
            response = RedirectResponse("/client/", 303)
            secure = request.url.scheme == "https"
            response.set_cookie(COOKIE, self.token, httponly=True, samesite="strict", secure=secure, path="/")
            return response
        return None


def _answer(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status)
