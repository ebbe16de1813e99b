"""Published serving speeds against soong's: `python -m benchmarks.speed` prints how far they lie apart."""
