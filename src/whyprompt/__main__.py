"""``python -m whyprompt`` is ``whyprompt``."""

from whyprompt.cli import main

if __name__ == "__main__":
    main()
