"""Completion of command lines: ``scripts`` ask from within a shell, ``candidates`` answers."""
