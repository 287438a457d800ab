"""Incidents in the database, and what opens with them: findings and queued runs."""
