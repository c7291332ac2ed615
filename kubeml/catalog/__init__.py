"""What users upload: functions and datasets."""
