"""Aggregation rules, one file each: from the sum of updates to the next global weights."""
