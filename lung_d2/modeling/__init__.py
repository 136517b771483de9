"""Our registered heads; importing this puts them into Detectron2's registries."""

from lung_d2.modeling.roi_heads import LungROIHeads

__all__ = ["LungROIHeads"]
