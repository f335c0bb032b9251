"""Everything around the training step. Each handler documents its engine, event and effect."""
