"""The work of `side_by_side.py`: each function sets one side up and returns a turn, `() -> s`."""
