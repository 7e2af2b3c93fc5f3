"""The reward processor: joins prompts, outputs and feedback into rewarded trajectories."""
