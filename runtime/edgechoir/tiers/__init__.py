"""The real hosts of the state machines: they keep the clock, carry the bytes and do the work.

`host` is what every tier does alike; `device` adds the sensor stream, inference and training;
`aggregator` serves node, edge cloud and cloud.
"""
