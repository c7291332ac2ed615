"""Blobs of tensors on Redis, in chunks."""
