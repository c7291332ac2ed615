"""A job's description, plan and durable records."""
