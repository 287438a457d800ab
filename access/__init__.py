"""Access decides what a caller may do: identities, the rule of each RPC, secure channels."""
