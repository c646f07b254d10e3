"""Rates: what a person reads about how fast a search is."""

from elenas_jax.experiment.progress import rates


def row(trained, seconds, **spent):
    return {
        "new_evaluations": trained,
        "seconds_evaluating": seconds,
        "policy_steps": 0,
        "seconds_strategy": 1.0,
        "seconds_evaluator": spent,
    }


def test_fast_evaluations_are_counted_by_the_second_and_slow_ones_by_the_hour():
    assert rates([row(20, 10.0)]) == ["2 evaluations/s"]
    assert rates([row(3, 1000.0)]) == ["10.8 evaluations/h"]
    # The first generation of several is left out.
    assert rates([row(3, 1.0), row(1, 1.0)]) == ["1 evaluations/s"]
    assert rates([row(0, 1.0)]) == []


def test_the_share_of_compiling():
    compiling = row(10, 10.0, compiling=10.0, waiting=5.0, training=30.0)
    assert rates([compiling]) == ["3,600 evaluations/h", "compiling 25% (14% waited for)"]
    del compiling["seconds_evaluator"]  # of a run of before there was such a thing
    assert rates([compiling]) == ["1 evaluations/s"]
