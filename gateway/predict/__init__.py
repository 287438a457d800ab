"""A Predict call from columns to replies: routing, feature lookup, dispatch."""
