"""How good a version is likely to be while its outcomes are not known yet."""
