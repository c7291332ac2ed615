"""Prometheus metrics: books that the processes keep, and what a scrape makes of them.

The books (``job_books``, ``worker_book``, ``scheduler_book``) are plain numbers, kept whether or
not anybody asks. Only a process that serves metrics imports ``exporter``, and prometheus_client.
"""
