"""What runs a user's function, in workers and in the check: kubeml's part that imports torch."""
