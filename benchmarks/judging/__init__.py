"""How sure and how fast the rollout judge is, beside other judges."""
