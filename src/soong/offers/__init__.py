"""What is for rent, at which price, since when we know."""
