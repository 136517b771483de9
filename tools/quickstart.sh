#!/usr/bin/env bash
# Sets up, then shows the whole method on synthetic patients, from DICOM to lesions: bash tools/quickstart.sh
# --series DIR recognises your own DICOM series as well. Run again, it reuses what is done.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

bash "$ROOT/tools/setup.sh"
exec "$ROOT/.venv/bin/python" "$ROOT/tools/quickstart.py" "$@"
