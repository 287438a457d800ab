"""Views and labels on public tables: the data of the demo and the tests."""
