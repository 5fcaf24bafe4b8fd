"""What a completion, or the probability of the gold answer, is worth."""
