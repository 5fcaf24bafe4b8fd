"""Designs with an estimator of their own, one a file: an instrument, a front door, a roll-out on a date."""
