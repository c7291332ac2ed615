"""What a job did, worked out afterwards: audit and explain. Pure."""
