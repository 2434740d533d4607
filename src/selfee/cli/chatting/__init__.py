"""What ``selfee chat`` is made of: a conversation on disk, slash commands, the loop, the input line."""
