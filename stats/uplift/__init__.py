"""What acting on a model's scores is worth, against the customers of its holdout."""
