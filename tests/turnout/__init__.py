"""The operator's command: what it asks, prints, starts and leaves with."""
