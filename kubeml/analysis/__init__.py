"""What a job did, worked out from its records: ``task audit`` and ``task explain``. Pure."""
