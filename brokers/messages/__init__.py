"""Messages: hints through Celery's and kombu's queues, any of which may be lost."""
