"""The training criterion: a weighted sum of named losses."""
