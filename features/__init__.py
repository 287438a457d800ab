"""What is known about an entity: views, as-of joins offline, rows online, from one definition."""
