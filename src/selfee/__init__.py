"""selfee: a language model that answers, criticises its own answer and rewrites it until it is content."""

__version__ = "0.1.0"
