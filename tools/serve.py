#!/usr/bin/env python
r"""Open the client: a page in the browser on which a study is dropped, recognised, and looked at.

python tools/serve.py --weights mask_rcnn_R_50_FPN_both
python tools/serve.py --weights NAME.safetensors --archive http://localhost:8042/dicom-web --dicom-node LUNG_D2:11112

Needs lung_d2[client] (bash tools/setup.sh --client, which also fetches the viewer, OHIF). It listens on this machine
alone; with --host it listens elsewhere, and the address that it prints holds the token that it asks for.
"""

from __future__ import annotations

import argparse
import logging
import secrets
import threading
import time
from dataclasses import replace
from pathlib import Path

from lung_d2.command_line import run_tool
from lung_d2.errors import DependencyError, LungD2Error
from lung_d2.files import hash_content
from lung_d2.lesions.link import LinkSettings
from lung_d2.recognition import RecognitionSettings
from lung_d2.recognition.job import ModelChoice, RecognitionJob, read_origin
from lung_d2.recognition.pipeline import identify_origin

logger = logging.getLogger("serve")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="NAME.safetensors, or the name of such a file that is known")
    parser.add_argument("--config-file", type=Path, help="config of a checkpoint; weights files hold their own")
    parser.add_argument("--store", type=Path, default=Path("output/client"), help="folder of studies and results")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8742)
    parser.add_argument("--public-name", default=[], action="append", help="host name of a proxy before it; repeatable")
    parser.add_argument("--no-token", action="store_true", help="ask for no token on this machine")
    parser.add_argument("--archive", metavar="DICOMWEB_URL", help="archive to choose studies from and send results to")
    parser.add_argument("--dicom-node", metavar="AETITLE[@HOST]:PORT", help="receive CT by C-STORE and recognise it")
    parser.add_argument("--dicom-peer", metavar="AETITLE@HOST:PORT", help="where SEG and SR of received CT are sent")
    parser.add_argument("--quiet-s", type=float, default=10.0, help="seconds without images that end a received series")
    parser.add_argument("--viewer", type=Path, help="folder of OHIF's dist (default: where the set-up put it)")
    parser.add_argument("--score-threshold", type=float, default=LinkSettings().min_detection_score)
    parser.add_argument("--max-jobs", type=int, default=100, help="recognitions that may wait")
    parser.add_argument("--max-upload-mb", type=float, default=4096.0)
    parser.add_argument("--keep-days", type=float, help="remove studies to which nothing was added for so many days")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config")
    return parser


def main() -> None:
    """Serve until it is interrupted."""
    args = build_parser().parse_args()
    try:
        import uvicorn

        from lung_d2.client import Archive, Jobs, Limits, Store
        from lung_d2.client.app import Parts, build_app
        from lung_d2.client.security import Audit, Guard, is_loopback
        from lung_d2.client.viewer import find_viewer
    except ImportError as error:
        raise DependencyError("client", found=f"no {error.name}", remedy="bash tools/setup.sh --client") from error
    recognition = _build_recognition(args)
    origin = identify_origin(read_origin(recognition.model), "")  # says now where weights miss
    store = Store(args.store)
    model = hash_content(f"{origin.weights_sha256} {origin.config_sha256} {recognition.settings.describe()}")
    forward = _Forward(args, store)
    jobs = Jobs(store, recognition, model, most=args.max_jobs, on_done=forward)
    forward.jobs = jobs
    archive = Archive(args.archive) if args.archive else None
    token = "" if args.no_token and is_loopback(args.host) and not args.public_name else secrets.token_urlsafe(24)
    limits = Limits(upload_mb=args.max_upload_mb)
    audit = Audit(args.store / "audit.jsonl")
    app = build_app(
        Parts(store, jobs, archive, find_viewer(args.viewer), audit, limits),
        Guard.of(args.host, token, args.max_upload_mb, args.public_name),
    )
    node = forward.start_node()
    if args.keep_days:
        threading.Thread(target=_expire, args=(store, jobs, args.keep_days, audit), daemon=True).start()
    query = f"/?token={token}" if token else "/"
    logger.info("open http://%s:%d%s  (research use only; Ctrl-C ends it)", args.host, args.port, query)
    try:
        uvicorn.run(app, host=args.host, port=args.port, log_level="warning", access_log=False, server_header=False)
    finally:
        if node:
            node.stop()


def _build_recognition(args: argparse.Namespace) -> RecognitionJob:
    score = args.score_threshold
    link = replace(RecognitionSettings().link, min_detection_score=score, min_lesion_score=score)
    model = ModelChoice(args.config_file, (*args.opts, "MODEL.WEIGHTS", args.weights))
    return RecognitionJob(model, args.store / "results", RecognitionSettings(link=link))


class _Forward:
    """Recognise what the DICOM node receives, and send the results on."""

    def __init__(self, args: argparse.Namespace, store: object) -> None:
        self.args, self.store, self.jobs = args, store, None
        self._received: set[str] = set()

    def start_node(self) -> object:
        """Start the node, where one is asked for."""
        if not self.args.dicom_node:
            return None
        from lung_d2.client.node import start_node

        return start_node(self.args.dicom_node, self.store, self._receive, self.args.quiet_s)

    def _receive(self, series: str) -> None:
        self._received.add(series)
        self.jobs.add(series)

    def __call__(self, job: object) -> None:
        from lung_d2.client.node import Address, send_objects

        if not self.args.dicom_peer or job.series not in self._received:
            return
        folder = self.jobs.result_of(job)
        paths = [*sorted(folder.glob("segmentation_*.dcm")), *folder.glob("structured_report.dcm")]
        title = Address.parse(self.args.dicom_node).title
        try:
            send_objects(paths, Address.parse(self.args.dicom_peer), title)
        except LungD2Error as error:
            logger.error("results were not sent: %s", error)


def _expire(store: object, jobs: object, keep_days: float, audit: object) -> None:
    while True:
        for study in store.list_expired(keep_days):
            jobs.remove_study(study)
            audit.write("expired", None, study)
        time.sleep(3600)


if __name__ == "__main__":
    run_tool(main)
