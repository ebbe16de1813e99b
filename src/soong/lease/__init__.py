"""Station 7, until when: what a lease is, and the ledger that remembers every step of it."""
