"""Commands about a project: write one, check it, plan, apply, train."""
