"""The networks and their losses: plain torch, tensors in and tensors out."""
