"""Copies of the log: replays, exports, archives, and what differs between two prefixes."""
