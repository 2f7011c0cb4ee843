"""The memory that a plan foretells is what a process of its own then takes."""

import json
import pathlib
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not pathlib.Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux"
    ),
]

# Prints the bytes that the plan foretells, and by how much the process grows over a step: over one
# alone, since the next may begin before a loaded machine has taken back this one's temporaries.
# Pages that nobody has written take no memory, so the state is filled.
MEASURE = """
import gc, json, sys
import jax, numpy as np
from zoo.config import make_config
from zoo.memory import keep_freed_memory
from zoo.plan.step import compile_step

def read(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

keep_freed_memory()
config = make_config(sys.argv[1], json.loads(sys.argv[2]))
step = compile_step(config, jax.devices(), float("inf"))
programs = step.parts.programs
run = programs.train_program(1)
gc.collect()
start = read("VmRSS")
fill = lambda shape, dtype: np.full(shape, 1e-2).astype(dtype)
state = jax.tree.map(
    lambda x: jax.device_put(fill(x.shape, x.dtype), x.sharding), programs.abstract_state
)
batch = {
    name: jax.device_put(np.ones(*shape), programs.blocks_sharding)
    for name, shape in programs.expected_shapes(1).items()
}
jax.block_until_ready(state)
open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
jax.block_until_ready(run(state, batch))
print(json.dumps([step.memory.total, read("VmHWM") - start]))
"""


@pytest.mark.parametrize(
    ("recipe", "values"),
    [
        ("configs/gpt_stdlib.py", {"train.batch_size": 48}),
        ("configs/gpt_stdlib.py", {"train.batch_size": 96, "model.remat": "full"}),
    ],
)
def test_a_plan_foretells_the_memory(recipe, values):
    words = [sys.executable, "-c", MEASURE, recipe, json.dumps(values)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    foretold, taken = json.loads(done.stdout.splitlines()[-1])
    assert taken / foretold == pytest.approx(1, abs=0.1), (foretold, taken)
