"""Celery tasks: doorways between the queues and kubeml; no rule lives here."""
