"""Blobs of tensors on Redis, in chunks: how weights and contributions travel."""
