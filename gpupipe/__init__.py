"""Bulk media work on every core and every GPU."""
