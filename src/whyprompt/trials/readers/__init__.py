"""Logs of other tools, one file a format, found by content."""
