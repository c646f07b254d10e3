"""Checkpoints: back to the bit, and never a damaged one in silence."""

import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.experiment.checkpoint import NUM_KEPT, Checkpoints
from elenas_jax.experiment.run_dir import RunError


class State(NamedTuple):
    count: Any
    key: Any
    nothing: Any
    params: Any
    host: Any
    number: Any


def make_state(seed: int = 0) -> State:
    numbers = np.random.default_rng(seed).normal(size=1000).astype(np.float32)
    numbers[0] = np.nan
    return State(
        count=jnp.arange(5, dtype=jnp.int8),
        key=jax.random.split(jax.random.key(seed), 2),
        nothing=jnp.zeros((0, 4)),
        params={"w": jnp.asarray(numbers), "b": jnp.ones(3, jnp.bfloat16), "on": jnp.array(True)},
        host=numbers.astype(np.float64),
        number=3,
    )


def words(leaf: Any) -> np.ndarray:
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_same(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert type(a) is type(b) and getattr(a, "dtype", None) == getattr(b, "dtype", None)
        assert words(a).shape == words(b).shape and words(a).tobytes() == words(b).tobytes()


@pytest.fixture
def checkpoints(tmp_path):
    found = Checkpoints(tmp_path / "checkpoints")
    yield found
    found.close()


def reopen(checkpoints: Checkpoints) -> Checkpoints:
    checkpoints.close()
    return Checkpoints(checkpoints.path)


def test_back_to_the_bit(checkpoints):
    assert checkpoints.newest() is None
    returned = checkpoints.save(1, make_state())
    assert_same(returned, make_state())
    assert_same(reopen(checkpoints).restore(1, make_state(seed=1)), make_state())


def test_what_save_returns_has_no_weak_types(checkpoints):
    state = checkpoints.save(1, {"x": jnp.asarray(1.0) * 2})
    assert not state["x"].weak_type
    assert not checkpoints.restore(1, state)["x"].weak_type


@pytest.mark.parametrize("state", ((), {"nothing": np.zeros((0, 2))}, [jnp.zeros(())]), ids=str)
def test_states_with_little_in_them(checkpoints, state):
    checkpoints.save(1, state)
    assert_same(reopen(checkpoints).restore(1, state), state)


def test_a_few_are_kept(checkpoints):
    for step in range(1, 6):
        checkpoints.save(step, make_state(step))
    again = reopen(checkpoints)
    assert again.newest() == 5
    assert sorted(int(entry.name) for entry in again.path.iterdir()) == list(range(6 - NUM_KEPT, 6))
    assert_same(again.restore(4, make_state()), make_state(4))


@pytest.mark.parametrize("damage", ("cut", "changed", "missing"))
def test_damage_to_any_file_is_seen_or_harmless(checkpoints, damage, capfd):
    checkpoints.save(1, make_state())
    checkpoints.close()
    whole = checkpoints.path
    seen = 0
    for file in [file for file in sorted(whole.rglob("*")) if file.is_file() and file.stat().st_size]:
        copy = whole.with_name("copy")
        shutil.copytree(whole, copy)
        victim = copy / file.relative_to(whole)
        content = victim.read_bytes()
        if damage == "cut":
            victim.write_bytes(content[: len(content) // 2])
        elif damage == "changed":
            middle = len(content) // 2
            victim.write_bytes(content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :])
        else:
            victim.unlink()
        damaged = Checkpoints(copy)
        try:
            assert_same(damaged.restore(1, make_state(1)), make_state())
        except RunError as error:
            seen += 1
            assert str(copy / "1") in str(error) and "damaged" in str(error) and "\n" not in str(error)
        damaged.close()
        shutil.rmtree(copy)
    assert seen >= 2
    assert capfd.readouterr().err == ""  # one line is said of it, by whoever catches the error


def test_a_state_of_another_strategy(checkpoints):
    checkpoints.save(1, make_state())
    with pytest.raises(RunError, match="another kind of state"):
        checkpoints.restore(1, make_state()._replace(count=jnp.arange(6, dtype=jnp.int8)))


def test_what_a_kill_left_is_cleared_away(checkpoints):
    checkpoints.save(1, make_state())
    (checkpoints.path / "2.orbax-checkpoint-tmp-3" / "state").mkdir(parents=True)
    again = reopen(checkpoints)
    assert again.newest() == 1
    assert [entry.name for entry in again.path.iterdir()] == ["1"]
