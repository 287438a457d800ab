"""Pure numbers: the formulas keep their promises."""
