"""Looking after a pool: checks of its health, credentials, Flower, chaos."""
