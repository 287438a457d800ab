"""Commands that call the gateway as a service does: predictions and outcomes."""
