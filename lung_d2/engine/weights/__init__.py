"""Weights files: one small safetensors file with weights, config, categories and provenance."""

from lung_d2.engine.weights.file import config_of

__all__ = ["config_of"]
