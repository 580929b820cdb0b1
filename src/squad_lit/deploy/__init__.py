"""A trained model at work: runtimes, predictions, thresholds and exports."""
