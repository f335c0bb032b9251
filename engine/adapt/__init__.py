"""Learning from unlabeled images: pseudo labels, memories of clusters, and their losses."""
