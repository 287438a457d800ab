"""Compares the features that gateways served with those that training would have had."""
