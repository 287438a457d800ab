"""Shadow versions: they score copies of answered calls in processes of their own."""
