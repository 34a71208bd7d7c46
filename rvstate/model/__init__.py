"""Values: what is wanted, what is there, and the difference; no effects."""
