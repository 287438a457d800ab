"""`turnout monitor policy suggest`: a first monitoring policy from what is known of a model."""
