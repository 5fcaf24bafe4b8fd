"""How rows are made comparable: matching, weighting and outcome models, one estimator a module."""
