"""The Python API: submit jobs, watch them, read what they came to."""
