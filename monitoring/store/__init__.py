"""The database of monitoring: cells, positions of readers, outcomes, windows."""
