"""From a configuration to a run, and from a sweep to many runs: the only layer that knows Hydra."""
