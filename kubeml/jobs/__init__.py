"""A job's description, plan and durable records, which clients and all roles share."""
