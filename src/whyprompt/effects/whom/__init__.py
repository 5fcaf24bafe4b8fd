"""Whom an arm helps and harms, by which columns, and which arm to choose."""
