"""What differs between the tasks of recipes: outcomes, metrics, decisions, gate and comparisons."""
