"""Plans as pictures: in the terminal, and as files for a slide.

`subject` and the two modules beside it (`memory_curves`, `price_dots`) make plain values of a plan: what is to be
shown, in which order, with which words. `terminal` draws them with letters, `figures` with matplotlib; `saving` writes
the file. The two plotting libraries come with the extra `soong[plots]` and are imported when something is drawn.
"""
