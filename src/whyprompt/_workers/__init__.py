"""Work in units, done here, by processes of this machine, or by a Ray cluster: alike in every digit."""
