"""This computer as a place to serve from: one machine, no price, the same lease and the same proof of its end."""
