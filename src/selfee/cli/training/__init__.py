"""What `selfee train` shows: examples before it begins, and how far it is."""
