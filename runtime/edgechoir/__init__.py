"""edgechoir: devices that answer in real time and learn together, each voice unheard."""

__version__ = "0.1.0"
