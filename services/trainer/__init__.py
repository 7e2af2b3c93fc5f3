"""The trainer: rewarded trajectories in, weight versions out, every record accounted for."""
