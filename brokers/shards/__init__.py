"""Datasets as shards on S3: their format, and how workers read them through a cache."""
