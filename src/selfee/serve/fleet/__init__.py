"""Several machines, one server: workers compute, a controller knows them, and whoever serves shares jobs out.

A job that a worker does not finish is done again by another, from its seed: what was delivered is not delivered twice.
The wire protocol of FastChat's controller and workers is spoken too (``door``, ``controller``).
"""
