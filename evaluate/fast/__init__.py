"""Fast, exact implementations of the steps in `evaluate.reference`, tested against it."""
