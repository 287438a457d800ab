"""Measures monitoring: false alarms, finds, estimates and speed."""
