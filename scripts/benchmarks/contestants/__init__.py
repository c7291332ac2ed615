"""What kubeml is compared with: each a process of its own."""
