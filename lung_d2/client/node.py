"""A DICOM node: a router sends series to it (C-STORE), and SEG and SR go on to a peer."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from lung_d2.client.store import CT_CLASSES, Store
from lung_d2.ct.headers import READ_ERRORS
from lung_d2.ct.pixels import COMPRESSED_SYNTAXES, NATIVE_SYNTAXES
from lung_d2.errors import ConfigError, InputError, LungD2Error, OutputError

logger = logging.getLogger(__name__)
_ADDRESS = re.compile(r"(?P<title>[^@:\s]{1,16})(@(?P<host>[^:\s]+))?:(?P<port>\d{1,5})")
VERIFICATION = "1.2.840.10008.1.1"
_SUCCESS, _REFUSED, _NOT_UNDERSTOOD = 0x0000, 0xA700, 0xC000


@dataclass(frozen=True)
class Address:
    """An application entity: ``title``, ``host``, ``port``."""

    title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str, host: str = "127.0.0.1") -> Address:
        """Read ``AETITLE:PORT`` or ``AETITLE@HOST:PORT``.

        Raises:
            ConfigError: It is neither.
        """
        match = _ADDRESS.fullmatch(text)
        if not match or not 0 < int(match["port"]) < 65536:
            raise ConfigError(
                "DICOM node", found=text, expected="AETITLE:PORT or AETITLE@HOST:PORT", remedy="correct it"
            )
        return cls(match["title"], match["host"] or host, int(match["port"]))


class Node:
    """Receives CT and tells which series are complete.

    A series is complete when nothing came for a quiet time after the association ended: routers send one series over
    several associations.

    Args:
        address: Its own title, host and port.
        store: Where the images go.
        on_series: Called with the UID of each complete series.
        quiet_s: The quiet time in seconds.
    """

    def __init__(self, address: Address, store: Store, on_series: Callable[[str], object], quiet_s: float = 10) -> None:
        self._store, self._on_series, self._quiet_s = store, on_series, quiet_s
        self._due: dict[str, float] = {}
        self._lock, self._stop = threading.Lock(), threading.Event()
        entity = AE(ae_title=address.title)
        entity.add_supported_context(VERIFICATION)
        syntaxes = sorted(uid for uid in (*NATIVE_SYNTAXES, *COMPRESSED_SYNTAXES) if uid)
        for kind in CT_CLASSES:
            entity.add_supported_context(kind, syntaxes)
        try:
            self._server: Any = entity.start_server(
                (address.host, address.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._receive)]
            )
        except OSError as error:
            found = error.strerror or "cannot listen"
            raise OutputError(f"port {address.port}", found=found, remedy="choose another port") from error
        self._thread = threading.Thread(target=self._watch, name="node", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._server.shutdown()
        self._thread.join()

    def _receive(self, event: Any) -> int:
        with self._store.staging() as folder:
            path = folder / "object"
            path.write_bytes(event.encoded_dataset())
            try:
                stored = self._store.add([path])
            except InputError:
                return _NOT_UNDERSTOOD
            except (OSError, LungD2Error) as error:
                logger.error("an image could not be stored: %s", type(error).__name__)
                return _REFUSED
        with self._lock:
            for series in stored.series:
                self._due[series] = time.monotonic() + self._quiet_s
        return _SUCCESS

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._quiet_s / 4)):
            now = time.monotonic()
            with self._lock:
                ready = [series for series, due in self._due.items() if due <= now]
                for series in ready:
                    del self._due[series]
            for series in ready:
                try:
                    self._on_series(series)
                except LungD2Error as error:
                    logger.error("a received series waits: %s", error)
                    with self._lock:
                        self._due[series] = now + 60.0


def send_objects(paths: list[Path], peer: Address, title: str) -> None:
    """Send objects to a peer by C-STORE.

    Args:
        paths: DICOM files.
        peer: Where to.
        title: What we call ourselves.

    Raises:
        OutputError: The peer does not take them.
    """
    datasets = [pydicom.dcmread(path) for path in paths]
    entity = AE(ae_title=title)
    entity.requested_contexts = [
        build_context(*kind)
        for kind in {(str(one.SOPClassUID), str(one.file_meta.TransferSyntaxUID)) for one in datasets}
    ]
    association = entity.associate(peer.host, peer.port, ae_title=peer.title)
    where = f"DICOM peer {peer.title}"
    if not association.is_established:
        raise OutputError(where, found="no association", remedy="check its title, host and port")
    try:
        for one in datasets:
            status = association.send_c_store(one)
            if not status or status.Status != _SUCCESS:
                found = f"status {status.Status:#06x}" if status else "no answer"
                raise OutputError(where, found=found, remedy="see the log of the peer")
    except (*READ_ERRORS, RuntimeError) as error:
        raise OutputError(where, found="an object that it does not take", remedy="see its log") from error
    finally:
        association.release()


def start_node(address: str, store: Store, on_series: Callable[[str], object], quiet_s: float = 10.0) -> Node:
    """Start a node at ``AETITLE:PORT`` of this machine alone, or ``AETITLE@HOST:PORT``; see :class:`Node`."""
    return Node(Address.parse(address), store, on_series, quiet_s)
