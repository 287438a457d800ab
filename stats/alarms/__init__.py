"""Alarms with a stated number of false ones: e-detectors of relevant changes, and their budget."""
