"""Arrays in, numbers out: fits, errors, resampling, adjustments for several tests. No frame, no sentence."""
