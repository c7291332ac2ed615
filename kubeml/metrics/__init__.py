"""Prometheus metrics: books that the processes keep, and what a scrape makes of them.

The books (``job_books``, ``worker_book``, ``scheduler_book``) are plain numbers, kept whether or
not they are ever read. Only a process that serves metrics imports ``exporter``, and with it
prometheus_client.
"""
