"""The jobs: one declaration a file."""
