"""How good a version is, from mature outcomes: figures of additive counts and of arrays."""
