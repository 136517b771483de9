#!/usr/bin/env python
r"""Export a detector as one TorchScript file, which runs with torch and torchvision, without Detectron2 and lung_d2.

python tools/export_torchscript.py --weights NAME.safetensors --output NAME.ts

To run it, on an image as lung_d2.slice_image makes it, with its shorter side as `resize` says::

    import json, cv2, torch, torchvision
    extra = {"lung_d2.json": ""}
    model = torch.jit.load("NAME.ts", _extra_files=extra)
    facts = json.loads(extra["lung_d2.json"])
    image = cv2.imread("image.png")                       # (H, W, 3), the same grey levels in each channel
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
    boxes, classes, masks, scores, size = model(pixels)   # masks in the frames of their boxes
    for box, index, score in zip(boxes.tolist(), classes.tolist(), scores.tolist()):
        print(facts["categories"][index]["name"], round(score, 3), [round(edge) for edge in box])
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from lung_d2.command_line import run_tool
from lung_d2.recognition.job import ModelChoice, read_config

logger = logging.getLogger("export_torchscript")


def main() -> None:
    """Export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", type=Path, help="config of the training; weights files hold their own")
    parser.add_argument("--weights", required=True, help="weights file, name of one, or checkpoint")
    parser.add_argument("--output", required=True, type=Path, help="file to write, as NAME.ts")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config")
    args = parser.parse_args()
    from lung_d2.engine.torchscript import export_torchscript

    cfg = read_config(ModelChoice(args.config_file, (*args.opts, "MODEL.WEIGHTS", args.weights)))
    logger.info("written to %s", export_torchscript(cfg, args.output))


if __name__ == "__main__":
    run_tool(main)
