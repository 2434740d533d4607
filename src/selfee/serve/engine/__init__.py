"""Between the server and whoever computes: jobs go in, events come out; in threads here, or in a process of its own."""
