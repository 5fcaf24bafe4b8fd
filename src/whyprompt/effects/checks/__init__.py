"""What speaks for and against an estimate: one check a module."""
