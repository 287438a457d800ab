"""Pure verdicts from evidence and a policy, their reasons, and the forecast before a start."""
