"""Settings of all tests."""

from hypothesis import settings

# A slow machine is no failure of the code. The same examples on every run, so a failure comes back.
settings.register_profile("book", deadline=None, derandomize=True)
settings.load_profile("book")
