"""Evidence: what the windows of the gateways show about a candidate."""
