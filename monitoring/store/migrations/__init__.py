"""Migrations of monitoring's database, which Alembic runs when it is opened."""
