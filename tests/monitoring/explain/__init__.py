"""Served predictions are found and explained by children, which may crash, hang or lie."""
