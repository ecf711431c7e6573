"""Bulk media work on every core and every GPU."""

__version__ = "0.1.0"
