"""Configuration: every key of ours with its unit and default, safe loading, and checks."""

from lung_d2.config.checks import check_config
from lung_d2.config.keys import add_lung_config, ignores_undecided, input_settings
from lung_d2.config.loading import load_config, parse_config

__all__ = [
    "add_lung_config",
    "check_config",
    "ignores_undecided",
    "input_settings",
    "load_config",
    "parse_config",
]
