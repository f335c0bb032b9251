"""What happens around the training step: each handler names its engine, its event, and what it touches."""
