"""The same figures by DoWhy and CausalML, in an interpreter of their own."""
