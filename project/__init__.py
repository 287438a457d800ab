"""Reads an operator's project folder, compares it with what is applied, and plans the change."""
