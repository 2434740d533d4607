"""``selfee data``: the commands that make training data, a file each; ``command.py`` puts them together."""
