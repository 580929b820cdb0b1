"""LightningModules, what they train from, how they are measured, and what a checkpoint keeps."""
