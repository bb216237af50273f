"""Configuration of every tier: one TOML file, checked by models, refused with the line to change.

`load` reads a file, `template` writes one. The models are in `tiers.py` and `sections.py`.
"""

from edgechoir.config.reading import load, load_for, parse
from edgechoir.config.template import template
from edgechoir.config.tiers import (
    KINDS,
    AggregatorConfig,
    CloudConfig,
    Config,
    DeviceConfig,
    EdgeCloudConfig,
    MonitorConfig,
    NodeConfig,
)

__all__ = [
    "KINDS",
    "AggregatorConfig",
    "CloudConfig",
    "Config",
    "DeviceConfig",
    "EdgeCloudConfig",
    "MonitorConfig",
    "NodeConfig",
    "load",
    "load_for",
    "parse",
    "template",
]
