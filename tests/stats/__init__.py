"""The formulas of stats keep their promises."""
