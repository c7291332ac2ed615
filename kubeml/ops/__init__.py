"""Looking after a pool: checks, access, Flower, chaos."""
