"""Synthetic anomalies and views of normal images, drawn from an explicit generator."""
