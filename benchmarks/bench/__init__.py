"""The benchmark against the peers, ``make bench``: how many phone calls each system holds on one machine and model."""
