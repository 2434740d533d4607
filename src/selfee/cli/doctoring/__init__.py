"""What ``selfee doctor`` looks at: the processor, room, packages, addresses, the terminal, and what would fit."""
