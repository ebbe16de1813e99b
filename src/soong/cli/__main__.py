"""`python -m soong.cli`: the same as `soong`, for timers that cannot rely on a search path."""

from soong.cli import main

if __name__ == "__main__":
    main()
