"""The real state machines on a virtual clock and a virtual network, with faults drawn from a seed.

`python -m edgechoir.sim --seed 7` replays seed 7; the same seed gives the same trace anywhere.
"""
