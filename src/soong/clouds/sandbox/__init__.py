"""A cloud that costs nothing: Lambda's API on this computer, for rehearsals and for tests."""
