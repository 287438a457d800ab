"""The journal: nothing promised is lost, nothing lost is hidden."""
