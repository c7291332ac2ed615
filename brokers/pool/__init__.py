"""The pool on Redis: which processes are there, and what waits for them."""
