"""Looking at data and checking it: `zoo data show` and `zoo data check`."""
