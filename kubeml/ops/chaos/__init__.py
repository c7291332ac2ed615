"""``kubeml chaos``: training while processes are killed at random."""
