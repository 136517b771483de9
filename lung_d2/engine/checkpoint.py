"""Checkpoints: read without running code, written whole or not at all."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import socket
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from fvcore.common.checkpoint import Checkpointer

from lung_d2.categories import CATEGORIES, Categories
from lung_d2.config.checks import as_plain
from lung_d2.engine.weights.file import check_finite, read_weights_file, untrusted
from lung_d2.engine.weights.names import SUFFIX, find_weights
from lung_d2.errors import CheckpointError, DatasetError

logger = logging.getLogger(__name__)

_STAGING = ".saving"
_FETCH_TIMEOUT_S = 30.0
# What a start should share with the training: window and anchors can be learnt anew, and neighbouring slices are meant
# to start from a network of single ones.
_APPEARANCE = ("INPUT.CT.GREY", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD")

_NOTICE_LETTERS = {"licence": 50_000, "source": 500}  # at most; the text of Apache-2.0 has 11 000

_BROKEN_PICKLE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error),
    *(EOFError, IndexError, RuntimeError, ValueError),
)
"""What PyTorch raises when it reads random bytes as a pickle without code."""

# What a pickle of numpy arrays alone needs; numpy 2 renamed numpy.core.
_ARRAY_GLOBALS = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),  # bytes in pickles of Python 2
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_GLOBALS:
            raise pickle.UnpicklingError(f"Weights only, without {module}.{name}")
        return super().find_class(module, name)


class LungCheckpointer(DetectionCheckpointer):  # type: ignore[misc]
    """Detectron2's checkpointer, for files from any source and for runs that may be killed at any moment.

    Args:
        model: The model.
        save_dir: Folder of the saves.
        tag_last: Whether ``--resume`` takes up the latest save.
        allow_partial: Whether weights may lack parameters, as a backbone that a training starts from does.
        settings: What the model is trained to see, :func:`lung_d2.config.input_settings`; saved with the weights, and
            compared with those of a file that is loaded whole. A weights file is compared in everything that belongs to
            the weights, where :func:`~lung_d2.engine.weights.file.bound_settings` are given.
        categories: What the model tells apart; saved with the weights, and compared with those of a file that is loaded
            whole. None: those of the file are taken.

    Attributes:
        categories: As given, or as loaded: the two defaults where the file names none.
        notice: ``licence`` and ``source`` of the loaded weights, where they have any: texts that their licence asks to
            keep with everything made from them, and that are therefore saved again. Checkpointers of one run share the
            mapping, which stays the same object.
    """

    save_dir: str
    _parsed_url_during_load: Any  # Detectron2's, which its _load_file reads

    def __init__(
        self,
        model: torch.nn.Module,
        save_dir: str = "",
        *,
        tag_last: bool = True,
        allow_partial: bool = False,
        settings: Mapping[str, Any] | None = None,
        categories: Categories | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, save_dir, **kwargs)
        self.tag_last = tag_last
        self.allow_partial = allow_partial
        self.settings = as_plain(settings or {})
        self.categories = categories
        self.notice: dict[str, str] = {}
        self._partial_is_fine, self._source = False, ""

    def save(self, name: str, **kwargs: Any) -> None:
        """Save as ``name.pth`` aside, then move it and ``last_checkpoint`` to their places."""
        if not self.save_dir or not self.save_to_disk:
            return
        final = Path(self.save_dir)
        staging = final / _STAGING
        shutil.rmtree(staging, ignore_errors=True)  # what a killed save left
        staging.mkdir(parents=True)
        self.save_dir = str(staging)
        try:
            categories = {} if self.categories is None else {"categories": self.categories.to_coco()}
            super().save(name, settings=self.settings, **categories, **self.notice, **kwargs)
        finally:
            self.save_dir = str(final)
        os.replace(staging / f"{name}.pth", final / f"{name}.pth")
        if self.tag_last:
            os.replace(staging / "last_checkpoint", final / "last_checkpoint")
        shutil.rmtree(staging)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load weights from a checkpoint, a weights file or its name, or a ``detectron2://`` or ``https://`` address.

        Raises:
            CheckpointError: The file is missing, cannot be fetched, is broken, holds more than arrays, or NaN or
                infinity, or belongs to another model, other images or other categories.
        """
        path = os.fspath(find_weights(path) or path)
        self._partial_is_fine, self._source = self.allow_partial and checkpointables == [], path
        with _fetch_timeout():
            try:
                if not path:
                    return super().load(path, checkpointables)  # type: ignore[no-any-return]
                # fvcore's load, since Detectron2's announces the same file once more.
                self._parsed_url_during_load = urlparse(path)
                local = self.path_manager.get_local_path(path)
                return Checkpointer.load(self, local, checkpointables)  # type: ignore[no-any-return]
            except OSError as error:
                raise self._missing(path, error) from error
            except AssertionError as error:
                raise CheckpointError(path, found="no such file", remedy="name an existing file") from error
            finally:
                self._parsed_url_during_load = None

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        settings = checkpoint.pop("settings", {})
        if not isinstance(settings, Mapping):
            raise untrusted(self._source, f"holds settings that are {type(settings).__name__}")
        if not _is_state_dict(checkpoint["model"]):
            raise untrusted(self._source, "holds no state dict")
        self._take_categories(checkpoint.pop("categories", None))
        self._check_settings(as_plain(settings))
        self._keep_notice(checkpoint)
        incompatible = super()._load_model(checkpoint)
        missing, total = len(incompatible.missing_keys), len(self.model.state_dict())
        if missing == total or (missing and not self._partial_is_fine):
            raise CheckpointError(
                self._source,
                found=f"without {missing} of the model's {total} parameters, {incompatible.missing_keys[0]} first",
                expected="weights of this config's model",
                remedy="give the config that it was trained with",
            )
        check_finite(self.model.state_dict(), self._source)
        return incompatible

    def _take_categories(self, records: Any) -> None:
        if self._partial_is_fine:
            return  # the start of a training, whose categories are those of its data
        try:
            found = CATEGORIES if records is None else Categories.from_coco(records, self._source)
        except DatasetError as error:
            raise untrusted(self._source, error.found) from error
        classes = getattr(getattr(self.model, "roi_heads", None), "num_classes", len(found))
        expected = self.categories or found
        if found.names != expected.names or len(found) != classes:
            wanted = ", ".join(expected.names) if found.names != expected.names else f"{classes} of them"
            raise CheckpointError(
                self._source,
                found=f"trained on the categories {', '.join(found.names)}",
                expected=f"{wanted}, as the {'data' if self.categories else 'config'} says",
                remedy="give the config and the data that it was trained with",
            )
        self.categories = expected

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        for key in sorted(settings.keys() & self.settings.keys()):
            if settings[key] == self.settings[key]:
                continue
            if not self._partial_is_fine:
                raise CheckpointError(
                    self._source,
                    found=f"trained with {key} {settings[key]}",
                    expected=f"{self.settings[key]}, as the config says",
                    remedy="give the config that it was trained with",
                )
            if key in _APPEARANCE:
                logger.warning("%s: trained with %s %s, not %s", self._source, key, settings[key], self.settings[key])

    def _keep_notice(self, checkpoint: dict[str, Any]) -> None:
        self.notice.clear()
        for key, most in _NOTICE_LETTERS.items():
            text = checkpoint.pop(key, "")
            if isinstance(text, str) and 0 < len(text) <= most:
                self.notice[key] = text
            elif text:
                logger.warning("%s: its %s is not a text of at most %d letters: ignored", self._source, key, most)
        checkpoint.update(self.notice)

    def _missing(self, path: str, error: OSError) -> CheckpointError:
        if "://" not in path:
            return CheckpointError(path, found=type(error).__name__, remedy="check MODEL.WEIGHTS and its permissions")
        from detectron2.utils.file_io import Detectron2Handler
        from iopath.common.file_io import get_cache_dir

        url = path.replace(Detectron2Handler.PREFIX, Detectron2Handler.S3_DETECTRON2_PREFIX)
        place = Path(get_cache_dir()) / url.split("://", 1)[1].split("/", 1)[1]
        return CheckpointError(
            path,
            found=f"cannot be downloaded ({type(error).__name__})",
            remedy=f"download {url} elsewhere and put it at {place}, or name a file by MODEL.WEIGHTS",
        )

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(SUFFIX):
            file = read_weights_file(Path(filename))
            notice = {key: file.provenance.get(f"start_{key}", "") for key in _NOTICE_LETTERS}
            categories = file.categories.to_coco()
            return {"model": file.read_tensors(), "settings": file.settings, "categories": categories, **notice}
        with _named_errors(filename):
            if filename.endswith(".pkl"):  # which Detectron2 reads by a pickle that runs code
                with open(filename, "rb") as stream:
                    _ArrayUnpickler(stream, encoding="latin1").load()
            return super()._load_file(filename)  # type: ignore[no-any-return]

    def _torch_load(self, f: str) -> Any:
        return torch.load(f, map_location="cpu", weights_only=True)


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(one, torch.Tensor | np.ndarray) for name, one in value.items()
    )


@contextmanager
def _named_errors(filename: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN_PICKLE as error:
        reason = "holds more than arrays" if "Weights only" in str(error) else "is broken or not a checkpoint"
        raise untrusted(filename, reason) from error
    except (TypeError, AttributeError, KeyError, AssertionError, ImportError) as error:
        raise untrusted(filename, "holds no state dict") from error


@contextmanager
def _fetch_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_FETCH_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
