"""Views and labels on public tables, for the demo and the tests."""
