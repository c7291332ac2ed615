"""The scheduler: how many slots an epoch has."""
