"""Streaming on the device: source, check, operators, inference, sinks."""
