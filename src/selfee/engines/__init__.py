"""Whoever can continue a text: a model on this machine, a server, or a script.

Never knows what an answer, feedback or revision is.
"""
