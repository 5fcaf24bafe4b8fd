"""Columns made ready, every step recorded and repeated on other rows as it was learnt."""
