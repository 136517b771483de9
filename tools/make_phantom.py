#!/usr/bin/env python
"""Write a cohort of synthetic chest CTs with their truth: DICOM series and NIfTI masks.

python tools/make_phantom.py --preset quick --out output/cohort
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from lung_d2.command_line import run_tool
from lung_d2.phantom import preset_by_name, write_cohort


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="quick", help="quick, benchmark or mini (default: quick)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the cohort; finished series there are kept")
    parser.add_argument("--patients", type=int, help="number of patients (default: that of the preset)")
    parser.add_argument("--seed", type=int, help="seed of the cohort (default: that of the preset)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    return parser.parse_args()


def main() -> None:
    """Write the cohort that the command line asks for."""
    args = _parse()
    spec = preset_by_name(args.preset)
    given = {"patients": args.patients, "seed": args.seed}
    spec = replace(spec, **{name: value for name, value in given.items() if value is not None})
    with tqdm(total=spec.patients, unit="patient", desc=f"phantom {args.preset}") as bar:
        write_cohort(spec, args.out, args.workers, lambda done, _: bar.update(done - bar.n))


if __name__ == "__main__":
    run_tool(main)
