"""Datasets as shards on S3: their format, and reading them through a cache."""
