#!/usr/bin/env bash
# Sets up, then checks style and types and runs the test suite: bash tools/test.sh [pytest arguments]
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PY="$ROOT/.venv/bin/python"
# Debian packages that tests need, separated by spaces. A test whose package is missing skips with its reason.
DEBIAN_PACKAGES="dcmtk dicom3tools chromium orthanc orthanc-dicomweb iproute2"

install_debian_packages() {
    [ -n "$DEBIAN_PACKAGES" ] && [ -n "${CI:-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    # shellcheck disable=SC2086  # one word per package
    { apt-get update -q && apt-get install -q -y --no-install-recommends $DEBIAN_PACKAGES; } >/dev/null ||
        printf '[test] could not install %s: their tests will skip\n' "$DEBIAN_PACKAGES" >&2
}

check() {
    local name="$1" started=$SECONDS
    shift
    if ! "$@"; then
        printf '[test] %s failed; pytest did not run\n' "$name" >&2
        exit 1
    fi
    printf '[test] %s: %d s\n' "$name" $((SECONDS - started))
}

# The viewer is fetched for continuous integration alone; elsewhere its test skips, unless it is there already.
bash "$ROOT/tools/setup.sh" ${CI:+--client}
install_debian_packages
# The paths of the arguments are relative to the root, whatever folder this was called from.
cd "$ROOT"
check ruff "$PY" -m ruff check .
check format "$PY" -m ruff format --check --quiet .
check mypy "$PY" -m mypy
# pytest comes last: its summary is the closing line, its status is ours.
# A process for each core, each with whole files: their fixtures are shared. One thread each, lest they wait for others.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$PY" -m pytest --durations=15 --numprocesses=auto --dist=loadfile "$@"
