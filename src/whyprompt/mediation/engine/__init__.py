"""The model run with its heads set, cut and read: exact to the last digit, and tested before any change."""
