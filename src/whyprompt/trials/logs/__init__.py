"""From logs of other tools to one trial table: what was taken for what, and which trials pair."""
