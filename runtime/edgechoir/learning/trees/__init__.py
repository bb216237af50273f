"""Gradient boosting of trees by histograms that devices add up under masks."""
