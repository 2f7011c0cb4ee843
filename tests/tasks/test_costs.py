"""An objective costs what its models cost: nothing is computed twice, nothing large is held.

The compiled step of each is compared, by XLA's own count of floating-point operations and of bytes
read and written, with its bare models, forward and backward, each alone, and with the bare update.
Where a model's outputs are logits over a vocabulary, optax's cross-entropy of them is part of the
bare model: it reads and writes as much as some layers do, and nobody trains without it.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import optax
import pytest

from zoo.config import make_config
from zoo.models.flops import count_flops
from zoo.optim import make_optimizer
from zoo.tasks import self_distillation
from zoo.train.build import build

pytestmark = pytest.mark.slow

TEXT = {"data.source": "synthetic:embedded:stdlib", "model.arguments.vocab_size": 4096}
PAIRS = {"data.source": "synthetic:files:multi30k", "data.buckets": "[]"}
PAIRS |= {"optim.ema_decay": "None"}  # an average of the parameters is no part of the objective
GENERATOR = {
    "name": "electra_base_generator",
    "arguments": {
        **{"width": 64, "depth": 4, "num_heads": 1, "hidden": 256},
        **{"embedding_width": 128, "num_positions": 128, "vocab_size": 4096},
    },
}
TEACHER = {"name": "minilm_l6_h384", "arguments": {"vocab_size": 8000, "num_positions": 64}}
STUDENT = {"data.source": "synthetic:files:sst2", "data.tokenizer": "wordpiece:600"}
STUDENT |= {"init_from": "None", "init_pattern": "", "data.buckets": "[]"}
STUDENT |= {"model.arguments.vocab_size": 8000, "model.arguments.num_positions": 64}
CASES = {
    "classification": ("vit_mnist", {"data.source": "synthetic:files:mnist", "init_from": "None"}),
    # Of 10-50-1 itself a step moves half a megabyte, 8 % of it for the loop's sums and norm.
    "regression": (
        "mlp_diabetes:classic",
        {"train.batch_size": "352", "model.arguments.widths": "(50, 50, 50, 50, 50, 50)"},
    ),
    "causal_lm": ("gpt_stdlib", TEXT),
    "masked_lm": ("bert_stdlib:small", TEXT),
    "replaced_token": ("electra_stdlib:small", {**TEXT, "task.models": {"generator": GENERATOR}}),
    "spans": ("t5_stdlib:small", TEXT),
    "translation": ("multi30k", {**PAIRS, "model.arguments.vocab_size": 8000}),
    "masked_image": ("mae_mnist:small", {}),
    "clip": ("clip_digits:small", {}),
    "siglip": ("clip_digits:small,siglip", {}),
    "self_distillation": ("dino_mnist:small", {}),
    # Of logits and labels: the terms of hidden states and attention read those once more.
    "distillation": (
        "minilm3_sst2:8k",
        {**STUDENT, "task.models": {"teacher": TEACHER}, "task.arguments": {"temperature": 2.0}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_costs_what_its_models_cost(case):
    recipe, values = CASES[case]
    name, _, options = recipe.partition(":")
    config = make_config(f"configs/{name}.py:{options}", values)
    parts = build(config)
    programs, key = parts.programs, jax.eval_shape(lambda: jax.random.key(0))
    calls = record_calls(parts.task, programs.abstract_params, programs.batch_shapes, key)
    bare = [call.count(key) for call in calls]
    bare.append(count_update(config, programs))
    step = read_costs(programs.train_program(1))
    for name, value in step.items():
        alone = sum(costs[name] for costs in bare)
        assert abs(value / alone - 1) < 0.05, (case, name, value / alone)


def test_logits_in_parts_cost_as_many_operations():
    """XLA counts the body of a loop once; the program before it says how often it runs."""
    counts = []
    for places in (0, 32):
        values = {**TEXT, "model.arguments.vocab_size": 16384, "task.arguments.places": places}
        parts = build(make_config("configs/gpt_stdlib.py", values))
        shapes = parts.programs.abstract_params, parts.programs.batch_shapes
        find_gradient = jax.grad(lambda p, b, task=parts.task: task.loss(p, b, None)[0])
        counts.append(count_flops(find_gradient, *shapes))
    assert counts[1] / counts[0] == pytest.approx(1, abs=0.01)


@dataclass(frozen=True)
class Call:
    """One call of a model, or of the head of self-distillation, in the loss of a task: `run(params,
    inputs, key)` repeats it, on shapes; of a teacher no gradient is taken, and a head alone passes
    one on to its inputs."""

    run: Any
    params: Any
    inputs: Any
    trained: bool
    is_head: bool = False

    def count(self, key: Any) -> dict[str, float]:
        """The costs of it, forward and, where it is trained, backward."""
        if not self.trained:
            return count_costs(self.run, self.params, self.inputs, key)

        out = jax.eval_shape(self.run, self.params, self.inputs, key)
        of_tokens = out.ndim == 3 and out.shape[-1] >= 1000

        def forward_and_backward(params, inputs, key, goal):
            if of_tokens:
                return jax.value_and_grad(lambda p: find_loss(self.run(p, inputs, key), goal))(
                    params
                )
            if self.is_head:
                out, back = jax.vjp(lambda p, x: self.run(p, x, key), params, inputs)
            else:
                out, back = jax.vjp(lambda p: self.run(p, inputs, key), params)
            return out, back(goal)

        def find_loss(logits, targets):
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

        goal = jax.ShapeDtypeStruct(out.shape[:-1], int) if of_tokens else out
        return count_costs(forward_and_backward, self.params, self.inputs, key, goal)


def record_calls(task, params, batch, key):
    """What the loss of a task calls, in order."""
    calls, apply, apply_head = [], nn.Module.apply, self_distillation.apply_head

    def record(model, variables, *inputs, rngs=None, train=False, method=None, **named):
        if method is not None:  # a part that has been called as a part of the whole
            return apply(model, variables, *inputs, rngs=rngs, train=train, method=method, **named)

        def run(params, given, key):
            more = {"train": True, "rngs": {"dropout": key}} if train else {}
            return apply(model, {"params": params}, *given[0], **given[1], **more)[0]

        calls.append(Call(run, *find_shapes((variables["params"], (inputs, named))), trained=train))
        more = {"train": True, "rngs": rngs} if train else {}
        return apply(model, variables, *inputs, **named, **more)

    def record_head(params, x):
        shapes = find_shapes((params, x))
        trained = calls[-1].trained  # as the model before it
        calls.append(Call(lambda p, x, _: apply_head(p, x), *shapes, trained, is_head=True))
        return apply_head(params, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "apply", record)
        patch.setattr(self_distillation, "apply_head", record_head)
        jax.eval_shape(task.loss, params, batch, key)
    return calls


def find_shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def count_update(config, programs):
    """The costs of the optimizer alone."""
    optimizer = make_optimizer(config.optim, config.train.num_steps, programs.groups)

    def update(params, opt_state, gradients):
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    state = find_shapes(programs.abstract_state)
    trained = programs.groups.trained(state.params)
    return count_costs(update, trained, state.opt_state, trained, donate=(0, 1))


def count_costs(function, *shapes, donate=()):
    return read_costs(jax.jit(function, donate_argnums=donate).lower(*shapes).compile())


def read_costs(compiled):
    costs = compiled.cost_analysis()
    return {name: costs[name] for name in ("flops", "bytes accessed")}
