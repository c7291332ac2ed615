"""Everything of kubeml that crosses a process boundary: Redis, Celery and kombu, S3."""
