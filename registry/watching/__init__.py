"""What a project says about watching a model, and incidents as values. No storage."""
