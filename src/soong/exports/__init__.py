"""Plans as files for the tools that people already trust."""
