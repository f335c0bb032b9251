"""One training run: its objects, its processes and its output folder."""
