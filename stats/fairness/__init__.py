"""Whether a version treats groups of people alike; groups under ten people are never shown."""
