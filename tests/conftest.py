"""Settings of the whole suite."""

from hypothesis import settings

# The suite runs on busy machines: a slow example is no finding, and no state is kept between runs.
settings.register_profile("suite", deadline=None, database=None)
settings.load_profile("suite")
