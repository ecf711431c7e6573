"""Operators: what is done to decoded pictures and to texts. No file formats here."""
