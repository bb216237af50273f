"""Secure aggregation without I/O: pair secrets, pads, masks and sealed boxes.

Read in this order: `sealing` (boxes to one reader), `parcel` (the same for long texts), `chains`
(secrets of a pair, round by round), `pads` (a seed made into a pad), `masking` (a member's masked
vector).
"""
