"""The networks and their losses, in plain torch."""
