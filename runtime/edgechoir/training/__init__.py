"""Training on the device, in a subprocess that comes and goes.

`trainer` is the device's side and needs no torch. `worker` is the subprocess: the only process of a
device that imports torch, at the lowest priority and on one thread, and gone when nobody needs it.
`fit` trains, `interpret` runs the graph, `frames` is what the two say to each other.
"""
