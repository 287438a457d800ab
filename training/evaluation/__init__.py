"""Evaluates a version's scores: metrics, fairness, expected shift, and the gate."""
