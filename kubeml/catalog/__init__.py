"""What users upload, and where it lies on S3: functions and datasets."""
