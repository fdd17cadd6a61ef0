"""The estimator: what scikit-learn asks of one, and what is promised beyond."""
