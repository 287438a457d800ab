"""Journals: append-only files of records on a gateway's disk. Gateways write, other rooms read."""
