"""The commands about incidents, and the notices that are sent of them."""
