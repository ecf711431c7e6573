"""The GPU: its memory, its kernel, its counters. Nothing here is imported where no GPU is asked for."""
