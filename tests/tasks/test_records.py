"""The error of data."""

from elenas_jax.tasks.records import DataError


def test_messages_are_one_line():
    error = DataError("a header\r\nwith a break")
    assert str(error) == "a header with a break" and isinstance(error, ValueError)
