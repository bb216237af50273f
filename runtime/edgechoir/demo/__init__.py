"""The demonstration: a whole fleet on one machine, on data that scikit-learn carries."""
