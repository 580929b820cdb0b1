"""A service over HTTP: requests, batches of them, and its figures."""
