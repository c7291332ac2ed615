"""The parameter server: merges, records and repairs."""
