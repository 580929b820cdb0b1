"""A folder that is watched: images as they arrive, what was judged, and whom it is told."""
