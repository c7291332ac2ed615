"""Weights as bytes: layout, merging, the outer step. It needs numpy alone, and is pure."""
