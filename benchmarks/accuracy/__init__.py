"""Every published figure against what soong and others say: `python -m benchmarks.accuracy`."""
