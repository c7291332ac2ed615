"""Weights as bytes: layout, merging, the outer step. numpy alone, pure."""
