"""Fewer bits: which tensor gets which type, how values become blocks, whole files, what each column is worth.

The twins (``quantizers.py`` and what it calls) define every byte; ``weights/quantize.py`` is the native ones' door.
"""
