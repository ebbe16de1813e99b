"""Where soong keeps things, and what the user has set."""
