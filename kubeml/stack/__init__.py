"""The embedded stack: servers and workers on one machine."""
