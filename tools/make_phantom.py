r"""Write a cohort of synthetic chest CTs with their truth: DICOM series and NIfTI masks.

python tools/make_phantom.py --preset quick --out output/cohort
python tools/make_phantom.py --into SERIES --copies 10 --out output/inserted      # lesions in a real, healthy lung

All copies of one SERIES are one patient: `prepare_dataset.py dicom output/inserted --instances values
--val-fraction 0` puts them all into the training split.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from lung_d2.command_line import run_tool
from lung_d2.errors import ConfigError
from lung_d2.phantom import INSERTED, PhantomSpec, preset_by_name, write_cohort, write_inserted_cohort


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--preset",
        help="quick, benchmark or mini (default: quick); with --into, only its number and size of lesions count",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the cohort; finished series there are kept")
    parser.add_argument("--patients", type=int, help="number of patients (default: that of the preset)")
    parser.add_argument("--seed", type=int, help="seed of the cohort (default: that of the preset)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    into = parser.add_argument_group("lesions in a real lung")
    into.add_argument("--into", type=Path, metavar="SERIES", help="chest CT of healthy lungs, without contrast medium")
    into.add_argument("--series-uid", help="which series, where SERIES holds several")
    into.add_argument(
        "--copies", type=int, help=f"copies of it, each with other lesions (default: {INSERTED.patients})"
    )
    return parser.parse_args()


def _read_spec(args: argparse.Namespace) -> PhantomSpec:
    wrong = "--patients" if args.into and args.patients is not None else ""
    if not args.into:
        wrong = next((f"--{name.replace('_', '-')}" for name in ("copies", "series_uid") if getattr(args, name)), "")
    if wrong:
        found = "given with --into" if args.into else "given without --into"
        raise ConfigError(wrong, found=found, remedy="give --copies with --into, --patients without")
    if args.into:
        spec = preset_by_name(args.preset) if args.preset else INSERTED
        count = INSERTED.patients if args.copies is None else args.copies
    else:
        spec = preset_by_name(args.preset or "quick")
        count = spec.patients if args.patients is None else args.patients
    return replace(spec, patients=count, seed=spec.seed if args.seed is None else args.seed)


def main() -> None:
    """Write the cohort that the command line asks for."""
    args = _parse()
    spec = _read_spec(args)
    unit, name = ("copy", "inserted") if args.into else ("patient", f"phantom {args.preset or 'quick'}")
    with tqdm(total=spec.patients, unit=unit, desc=name) as bar:

        def show(done: int, _: int) -> None:
            bar.update(done - bar.n)

        if args.into:
            write_inserted_cohort(args.into, args.out, spec, args.workers, show, args.series_uid)
        else:
            write_cohort(spec, args.out, args.workers, show)


if __name__ == "__main__":
    run_tool(main)
