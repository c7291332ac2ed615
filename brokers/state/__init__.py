"""Redis itself: connections, scripts, and many commands in one trip."""
