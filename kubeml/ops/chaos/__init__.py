"""Training while processes are killed at random."""
