"""What shall we do? The choice, the alternatives, the reasons and the cost."""
