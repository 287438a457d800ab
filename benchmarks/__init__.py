"""Measurements: questions about speed, endurance and the judge, each answered by a command."""
