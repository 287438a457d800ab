"""The /metrics page of control: newest figures, open incidents, and how late monitoring is."""
