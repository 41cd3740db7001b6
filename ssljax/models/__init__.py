"""Networks: Flax linen modules."""
