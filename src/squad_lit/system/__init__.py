"""Files, console, packages and memory, with the standard library, NumPy and Pillow alone."""
