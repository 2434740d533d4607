"""The words a user types. Parses, calls one room, prints; the only room that reads the environment."""
