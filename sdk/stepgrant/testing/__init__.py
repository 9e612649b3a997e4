"""Test helpers for the people who use Stepgrant: a real broker inside the test process.

`stepgrant.testing.plugin` is a pytest plugin that gives fixtures; it is found by itself once the package is installed.
"""
