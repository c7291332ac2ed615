"""The pool as a whole: which workers jobs want, get and have, and the picture of it."""
