"""What every tool shares: the log on the terminal, and errors as one line."""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from lung_d2.errors import LungD2Error
from lung_d2.processes import ignore_deprecations

ERROR_STATUS = 2


def run_tool(main: Callable[[], int | None]) -> None:
    """Run a tool's ``main`` and leave the process with its exit status.

    An error of ours, or a path without permission, ends as one line on stderr and status 2; Ctrl-C as status 130, and
    SIGTERM, which schedulers send, as status 143, both after what is open was closed. Anything else is a defect and
    keeps its traceback.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    ignore_deprecations()
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        status = main()
    except LungD2Error as error:
        traceback.clear_frames(error.__traceback__)  # closes progress bars, which end their line
        sys.stderr.write(f"error: {error}\n")
        sys.exit(ERROR_STATUS)
    except PermissionError as error:  # may come of any path, and says all that there is to say
        sys.stderr.write(f"error: {error.filename}: {error.strerror}; check its permissions\n")
        sys.exit(ERROR_STATUS)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)
    sys.exit(status or 0)


def _leave(number: int, frame: object) -> NoReturn:
    """Leave by an exception, so that worker processes and files are closed on the way."""
    sys.stderr.write("terminated\n")
    sys.exit(128 + number)
