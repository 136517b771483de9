"""Public names that are imported when first used, so that ``import lung_d2.ct`` loads no torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from lung_d2.errors import detectron2_missing


def export_lazily(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Args:
        package: ``__name__`` of the package.
        modules: The module, by its full name, of each public name; a room of the package is named by itself.

    Returns:
        Two functions; the first raises :class:`lung_d2.errors.DependencyError` where a name needs Detectron2 and it
        is not installed.
    """

    def get(name: str) -> Any:
        """Import the module of a public name and return what it names."""
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = importlib.import_module(modules[name])
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "detectron2":
                raise detectron2_missing() from error
            raise
        return module if modules[name] == f"{package}.{name}" else getattr(module, name)

    def list_names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, list_names
