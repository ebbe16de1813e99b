"""Station 8, get it: a machine asked for once, found again after any crash, and proved gone."""
