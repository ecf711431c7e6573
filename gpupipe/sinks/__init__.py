"""Slot-addressed outputs, one format a file."""
