"""Trains models again: asks for runs that are due, and runs them in children with limits."""
