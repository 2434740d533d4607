"""Runs a program that a model wrote, and lets it do nothing but compute.

Two processes, both confined: the *candidate* holds the program and only answers calls of its functions, the *tester*
runs the tests and sees plain values only. So a program cannot say that it passed, cannot make its results equal to
everything, and cannot read, write, send or start anything. ``run_tests`` starts both and kills both.

``candidate``, ``tester``, ``values`` and ``confinement`` run in those processes: they import the standard library and
each other, nothing else.
"""

from selfee.chain.checkers.sandbox.running import Isolation, Limits, TestRun, isolation_here, run_tests

__all__ = ["Isolation", "Limits", "TestRun", "isolation_here", "run_tests"]
