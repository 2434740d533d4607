"""What ``selfee doctor`` looks at: the processor, memory and disk, packages, addresses, the terminal, what would fit."""
