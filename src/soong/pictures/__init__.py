"""Plans as pictures: in the terminal, and as files for a slide."""
