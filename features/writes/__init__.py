"""What materialise and push need to write to the online store: scripts, pace and record."""
