"""Walks with other clients of the gateway, and with the programs that pages show."""
