"""Programs that run on the rented machine: Python 3.10, standard library only, sent over SSH."""
