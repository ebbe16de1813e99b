"""What can hold the model: graphics cards, and how many of them."""
