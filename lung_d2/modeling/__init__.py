"""Our registered backbone and heads; importing this puts them into Detectron2's registries."""

from lung_d2.modeling.attention import AttentionFPN
from lung_d2.modeling.roi_heads import LungROIHeads
from lung_d2.modeling.rpn import LungRPN

__all__ = ["AttentionFPN", "LungROIHeads", "LungRPN"]
