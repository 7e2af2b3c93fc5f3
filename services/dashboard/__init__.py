"""A live page of a running system, fed by the log alone."""
