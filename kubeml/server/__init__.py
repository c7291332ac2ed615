"""The parameter server: it merges rounds, records epochs, and repairs jobs."""
