"""The one place where steps become programs: mesh, shardings, donation, compilation."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.config import Config
from zoo.evaluation.passes import make_eval_step
from zoo.optim import make_groups, make_optimizer
from zoo.parallel import DATA_AXES, choose_specs, constrain_activations
from zoo.parallel.rules import like_params
from zoo.train.replicas import REPLICAS, map_replicas
from zoo.train.seeds import SEED_AXES, make_keys, map_step, pick_seed, place_seeds
from zoo.train.state import State, init_state
from zoo.train.step import find_norm, make_train_step, scan_steps
from zoo.tree import map_named, named_leaves

Shapes = dict[str, tuple[tuple[int, ...], Any]]


class Programs:
    """Compiled programs of one run.

    `abstract_state` is the state's shapes, dtypes and shardings, `abstract_params` those of the
    parameters that are evaluated: of several seeds those of one. `compile_seconds` is what
    compilation has cost so far.
    """

    def __init__(
        self,
        config: Config,
        task: Any,
        mesh: Mesh,
        batch: dict[str, jax.ShapeDtypeStruct],
        shorter: Sequence[dict[str, jax.ShapeDtypeStruct]] = (),
        frozen: frozenset[str] = frozenset(),
    ):
        """`batch` gives shapes and dtypes of a global training batch of one seed, `shorter` those
        of others that are planned too; `frozen` are canonical paths that train only where a row of
        `optim.rules` names them. Raises UserError on a table that does not fit the model."""
        self.mesh = mesh
        self.batch_sharding = NamedSharding(mesh, P(DATA_AXES))
        self.num_seeds = config.train.num_seeds
        several = self.num_seeds > 1
        rows = (None, DATA_AXES) if several else (DATA_AXES,)
        self.blocks_sharding = NamedSharding(mesh, P(None, *rows))
        self.compile_seconds = 0.0
        self._task = task
        self.batch_shapes, self._shorter = batch, shorter
        self._key = make_keys(config) if several else jax.random.key(config.seed)
        one = jax.random.key(config.seed)
        norm = find_norm if mesh.size == 1 else optax.tree.norm
        constants = getattr(task, "constants", None)
        shapes = jax.eval_shape(task.init, one)
        self.groups = make_groups(config.optim, shapes, frozen, constants)
        optimizer = make_optimizer(config.optim, config.train.num_steps, self.groups)
        self._optimizer = optimizer
        self.replicates = config.parallel.backend == "pmap"
        axis = REPLICAS if self.replicates else None
        step = make_train_step(task, optimizer, config, norm, self.groups, axis)
        self._train_step = map_step(step, self._key) if several else step
        self._compiled: dict[Any, Any] = {}

        def init(key: jax.Array) -> State:
            use_ema = config.optim.ema_decay is not None
            return init_state(task, optimizer, batch, key, use_ema, self.groups)

        self._init = init
        shapes = jax.eval_shape(init, one)
        specs = choose_specs(shapes.params, mesh, config.parallel.rules)
        whole = jax.tree.map(lambda _: P(), shapes)
        self.specs = dataclasses.replace(
            whole,
            params=specs,
            ema=None if shapes.ema is None else self.groups.trained(specs),
            opt_state=like_params(specs, shapes.params, shapes.opt_state),
        )
        self._one_sharding = jax.tree.map(lambda spec: NamedSharding(mesh, spec), self.specs)
        self.abstract_params = _place(shapes.params, self._one_sharding.params)
        self.state_shardings = self._one_sharding
        if several:
            self.state_shardings = place_seeds(self._one_sharding)
            shapes = jax.eval_shape(self._map_seeds(init), self._key)
        self.abstract_state = _place(shapes, self.state_shardings)

    def _map_seeds(self, make: Any) -> Any:
        """What makes the state of one seed, for all of them."""
        return jax.vmap(make, out_axes=SEED_AXES) if self.num_seeds > 1 else make

    def each_seed(self, state: State) -> Iterator[State]:
        """The states of the seeds, one after another; of one seed the state itself."""
        if self.num_seeds == 1:
            yield state
            return
        pick = jax.jit(pick_seed, out_shardings=self._one_sharding)
        for index in range(self.num_seeds):
            yield pick(state, index)

    def init_state(self) -> State:
        """A fresh state, made where it will live."""
        return jax.jit(self._map_seeds(self._init), out_shardings=self.state_shardings)(self._key)

    def start_from(self, params: Any) -> State:
        """A fresh state with these parameters, which may be a part of all (without the corrections
        of LoRA): the others are drawn, those that are given never. Those of several seeds are
        stacked.

        Many optimizers keep a copy of where they began (schedule-free, Prodigy, SAM).
        """

        def start(key: jax.Array, given: dict[str, Any]) -> State:
            fresh = self._init(key)
            params = map_named(lambda path, leaf: given.get(path, leaf), fresh.params)
            if hasattr(self._task, "begin"):
                params = self._task.begin(params)
            trained = self.groups.trained(params)
            return dataclasses.replace(
                fresh,
                params=params,
                ema=None if fresh.ema is None else jax.tree.map(jax.numpy.copy, trained),
                opt_state=self._optimizer.init(trained),
            )

        places = named_leaves(self.state_shardings.params)
        # A copy of their own: the state is donated. A companion may have less than its source.
        given = {
            path: jax.device_put(leaf, places[path], may_alias=False)
            for path, leaf in named_leaves(params).items()
            if path in places
        }
        make = self._map_seeds(start)
        return jax.jit(make, out_shardings=self.state_shardings)(self._key, given)

    def train(self, state: State, batches: Any, num_steps: int) -> tuple[State, dict[str, Any]]:
        """`num_steps` steps on stacked batches, in one dispatch. The state given is donated."""
        return self.train_program(num_steps, batches)(state, batches)

    def train_program(self, num_steps: int, batches: Any = None) -> Any:
        """The compiled program for batches stacked `num_steps` high, by default those expected."""
        shapes = self.expected_shapes(num_steps) if batches is None else find_shapes(batches)
        key = ("train", *shapes.items())
        if key not in self._compiled:
            specs = {
                name: jax.ShapeDtypeStruct(shape, dtype, sharding=self.blocks_sharding)
                for name, (shape, dtype) in shapes.items()
            }
            self._compile(key, self.jit_train(), self.abstract_state, specs)
        return self._compiled[key]

    def expected_shapes(self, num_steps: int) -> Shapes:
        """Shapes and dtypes of `num_steps` stacked batches."""
        return _stack(self.batch_shapes, *self._leading(num_steps))

    def _leading(self, num_steps: int) -> tuple[int, ...]:
        """The axes of stacked batches before those of a batch."""
        return (num_steps, self.num_seeds) if self.num_seeds > 1 else (num_steps,)

    def find_change(self, num_steps: int, batches: Any) -> str:
        """How batches differ from those expected, so that the step is compiled again; '' if not."""
        found, expected = find_shapes(batches), self.expected_shapes(num_steps)
        planned = [
            expected,
            *(_stack(shapes, *self._leading(num_steps)) for shapes in self._shorter),
        ]
        if found in planned or ("train", *found.items()) in self._compiled:
            return ""
        names = dict.fromkeys([*expected, *found])
        return ", ".join(
            f"{name} was {_show(expected.get(name))}, now {_show(found.get(name))}"
            for name in names
            if expected.get(name) != found.get(name)
        )

    def jit_train(self) -> Any:
        """The jitted, not yet compiled, scanned step."""
        steps = scan_steps(self._train_step)
        if self.replicates:
            steps = map_replicas(steps, self.mesh, len(self._leading(1)))
        else:
            steps = constrain_activations(steps, self.mesh)
        return jax.jit(
            steps,
            in_shardings=(self.state_shardings, self.blocks_sharding),
            out_shardings=(self.state_shardings, NamedSharding(self.mesh, P())),
            donate_argnums=0,
        )

    def evaluate(self, params: Any, batch: Any) -> dict[str, Any]:
        """Of the parameters of one seed: `sums` of one placed batch and, of a task that observes,
        `records` of its rows."""
        return self._run_on_params("eval", make_eval_step(self._task), P(), params, batch)

    def predict(self, params: Any, batch: Any) -> Any:
        """The task's predictions for one placed batch."""
        return self._run_on_params("predict", self._task.predict, P(), params, batch)

    def _run_on_params(self, name: str, function: Any, out: P, params: Any, batch: Any) -> Any:
        key = (name, *((k, v.shape) for k, v in sorted(batch.items())))
        if key not in self._compiled:
            jitted = jax.jit(
                constrain_activations(function, self.mesh),
                in_shardings=(self._one_sharding.params, self.batch_sharding),
                out_shardings=NamedSharding(self.mesh, out),
            )
            self._compile(key, jitted, params, batch)
        return self._compiled[key](params, batch)

    def _compile(self, key: Any, jitted: Any, *arguments: Any) -> None:
        start = time.perf_counter()
        self._compiled[key] = jitted.lower(*arguments).compile()
        self.compile_seconds += time.perf_counter() - start


def _place(shapes: Any, shardings: Any) -> Any:
    """Shapes and dtypes with where they lie."""
    return jax.tree.map(
        lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, shardings
    )


def _stack(shapes: dict[str, jax.ShapeDtypeStruct], *leading: int) -> Shapes:
    return {k: ((*leading, *s.shape), s.dtype) for k, s in sorted(shapes.items())}


def find_shapes(batches: Any) -> Shapes:
    """Field -> shape and dtype."""
    return {name: (x.shape, x.dtype) for name, x in sorted(batches.items())}


def _show(entry: Any) -> str:
    return "absent" if entry is None else f"{entry[1]}[{','.join(map(str, entry[0]))}]"
