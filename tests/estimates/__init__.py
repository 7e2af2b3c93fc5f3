"""Means, shares, their intervals, and quantiles."""
