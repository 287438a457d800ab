"""The house rules that a machine can keep, so that reviews need not."""
