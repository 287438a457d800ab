"""What happens after a reply: counters, windows, evidence and journal records."""
