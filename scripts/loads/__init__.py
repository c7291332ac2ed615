"""Loads: many jobs on few workers that come and go, checked to the bit; see scripts/load."""
