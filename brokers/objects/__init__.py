"""Whole objects on S3, for all that lasts: functions, datasets, checkpoints, records."""
