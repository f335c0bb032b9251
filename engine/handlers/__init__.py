"""Everything around the training step. Each handler documents its engine, its event and its effect."""
