"""The machine below: files written whole, signals, memory. Standard library, NumPy and Pillow alone."""
