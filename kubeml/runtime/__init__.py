"""What runs a user's function: the only room that imports torch."""
