"""The looks at a day of a version: drift, coverage, outcomes, estimates, business and fairness."""
