"""Models by name: where they come from, how they arrive whole, where they lie."""
