"""``python -m selfee.cli`` is ``selfee``."""

from selfee.cli import main

main()
