"""How values look to a person: plain functions from a value to text."""
