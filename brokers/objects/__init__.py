"""Whole objects on S3."""
