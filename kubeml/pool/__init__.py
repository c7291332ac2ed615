"""Who works for whom: demand, shares and the picture of the pool."""
