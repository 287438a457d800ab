"""How far the counts of one table of bins differ between a reference and live rows."""
