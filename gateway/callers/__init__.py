"""Identities of callers: the callers file, tokens, and what each caller has used."""
