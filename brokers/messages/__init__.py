"""Messages: hints through Celery's and kombu's queues."""
