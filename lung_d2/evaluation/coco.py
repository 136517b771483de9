"""COCO box and mask AP, with AP50 of each category."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.evaluation import COCOEvaluator

from lung_d2.files import write_json

TASKS = ("bbox", "segm")
# Least and most area of each size, both included, as in pycocotools.
_SIZES_PX2 = {"APs": (0, 32**2), "APm": (32**2, 96**2), "APl": (96**2, math.inf)}


class LungCOCOEvaluator(COCOEvaluator):  # type: ignore[misc]
    """Detectron2's ``COCOEvaluator``, with both tasks, without a stale cache, and with AP50 of each category."""

    def __init__(self, dataset_name: str, output_dir: str) -> None:
        """Evaluate ``dataset_name``; ``coco_instances_results.json`` and ``results.json`` go to ``output_dir``."""
        # Without tasks, an evaluation that detected nothing loses the segm key; the compiled evaluation is not built
        # everywhere and gives the same numbers.
        super().__init__(dataset_name, tasks=TASKS, output_dir=output_dir, use_fast_impl=False, allow_cached_coco=False)

    def evaluate(self, img_ids: list[int] | None = None) -> dict[str, dict[str, float]]:
        """Return ``{"bbox": {...}, "segm": {...}}`` in percent on the main process, ``{}`` on the others.

        A metric without ground truth is NaN, and null in ``results.json``.
        """
        results: dict[str, dict[str, float]] = super().evaluate(img_ids)
        if results:
            _write_json(results, Path(self._output_dir) / "results.json")
        return results

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        results: dict[str, float] = super()._derive_coco_results(coco_eval, iou_type, class_names=class_names)
        if coco_eval is None:
            return results | self._nothing_found(class_names or ())
        for index, name in enumerate(class_names or ()):
            results[f"AP50-{name}"] = _ap50(coco_eval, index)
        return results

    def _nothing_found(self, class_names: Sequence[str]) -> dict[str, float]:
        """Return AP 0 where there was something to find; Detectron2 says NaN, and nothing of the categories."""
        found = {f"{metric}-{name}": 0.0 for name in class_names for metric in ("AP", "AP50")}
        for coco_id, name in zip(self._coco_api.getCatIds(), class_names, strict=True):
            if not self._coco_api.getAnnIds(catIds=[coco_id], iscrowd=False):
                found |= {f"AP-{name}": float("nan"), f"AP50-{name}": float("nan")}
        lesions = self._coco_api.loadAnns(self._coco_api.getAnnIds(iscrowd=False))
        found |= {metric: 0.0 for metric in ("AP", "AP50", "AP75") if lesions}
        return found | {
            metric: 0.0
            for metric, (least, most) in _SIZES_PX2.items()
            if any(least <= lesion["area"] <= most for lesion in lesions)
        }


def _ap50(coco_eval: Any, category_index: int) -> float:
    """Return AP at IoU 0.5 in percent, NaN where the category has no ground truth.

    ``precision`` has axes IoU, recall, category, area range, detections an image; -1 marks what was not evaluated.
    """
    at_50 = int(np.argmin(np.abs(np.asarray(coco_eval.params.iouThrs) - 0.5)))
    precision = coco_eval.eval["precision"][at_50, :, category_index, 0, -1]
    precision = precision[precision > -1]
    return float(np.mean(precision) * 100) if precision.size else float("nan")


def _write_json(results: dict[str, dict[str, float]], path: Path) -> None:
    strict = {task: {name: None if math.isnan(ap) else ap for name, ap in aps.items()} for task, aps in results.items()}
    write_json(strict, path, indent=2)
