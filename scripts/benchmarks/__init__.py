"""Benchmarks: one file each, and what they share. ``scripts/bench`` runs them."""
