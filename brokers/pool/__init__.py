"""The pool on Redis: who is there, and what waits for them."""
