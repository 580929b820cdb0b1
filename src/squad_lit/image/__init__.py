"""Images as arrays, with NumPy and Pillow alone: files, tiles, regions and pictures."""
