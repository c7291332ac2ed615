"""The embedded stack: the servers and the pool's processes on one machine, for ``kubeml up``."""
