"""Rollout policies, their files, their freeze windows and the stages they allow."""
