"""Adapters in peft's layout against peft itself, both ways."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from twins import CASES, load_reference_model, make_inputs, make_twin, run_reference

import zoo
from zoo.models import init_params, make_lora

pytestmark = [
    pytest.mark.usefixtures("torch"),
    pytest.mark.parity,
    # peft 0.21 asks transformers 5.24 by an old name.
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
BY_NAME = {case.name: case for case in CASES}
SAME_OUTPUT = 1e-5  # of the largest magnitude


@pytest.fixture(scope="module")
def peft(torch):
    return pytest.importorskip("peft", reason="pip install -e '.[parity]'")


@pytest.fixture(scope="module")
def twin(torch, tmp_path_factory):
    """Name of a case -> its folder, made once and only read."""
    root = tmp_path_factory.mktemp("adapted")

    def make(name: str):
        folder = root / name
        if not folder.exists():
            make_twin(BY_NAME[name], folder)
        return folder

    return make


def write_adapter(torch, peft, twin, name, folder, **settings):
    """An adapter that peft made, all of its numbers moved, and the logits with it."""
    case = BY_NAME[name]
    model, _ = load_reference_model(case, twin(name))
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model, peft.LoraConfig(**settings)).eval()
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    adapted.save_pretrained(folder)
    return run_reference(adapted.to(torch.float32), case, make_inputs(case))["output"]


def run_ours(model, params, case):
    """Our outputs of the case's inputs."""
    inputs = make_inputs(case)
    names = ("tokens", "images", "source", "target")
    given = [jnp.asarray(inputs[name]) for name in names if name in inputs]
    more = {k: jnp.asarray(inputs[k], bool) for k in inputs if k.endswith("mask")}
    more |= {k: jnp.asarray(inputs[k]) for k in ("types",) if k in inputs}
    run = jax.jit(lambda p: model.apply({"params": p}, *given, **more)[0])
    return np.asarray(run(params))


def assert_same(found, expected, case):
    inputs = make_inputs(case)
    real = inputs.get("target_mask", inputs.get("mask"))
    if real is not None and found.shape[:2] == real.shape:
        found, expected = found[real.astype(bool)], expected[real.astype(bool)]
    assert np.abs(found - expected).max() <= SAME_OUTPUT * np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gpt2_lm", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
        (
            "gpt2_lm",
            {
                "target_modules": ["c_attn", "c_proj", "c_fc"],
                "fan_in_fan_out": True,
                "rank_pattern": {"mlp.c_fc": 3},
                "alpha_pattern": {"attn.c_proj": 5},
                "task_type": "CAUSAL_LM",
            },
        ),
        ("llama_grouped", {"target_modules": "all-linear", "use_rslora": True, "r": 4}),
        ("bert_classifier", {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}),
        ("bert_masked_lm", {"target_modules": ["query", "intermediate.dense"], "r": 2}),
        ("t5_v1_1", {"target_modules": ["q", "v"], "task_type": "SEQ_2_SEQ_LM"}),
    ],
)
def test_what_peft_writes(torch, peft, twin, tmp_path, name, settings):
    expected = write_adapter(torch, peft, twin, name, tmp_path / "a", **settings)
    loaded = zoo.load_pretrained(tmp_path / "a", base=twin(name))
    assert_same(run_ours(loaded.model, loaded.params, BY_NAME[name]), expected, BY_NAME[name])


def load_with_head(torch, case, folder):
    """The weights in the class of a case, as a user of transformers loads them for a new task."""
    transformers = pytest.importorskip("transformers")
    more = {k: v for k, v in case.arguments.items() if k in ("num_labels", "pad_token_id")}
    more |= {"attn_implementation": "eager", "dtype": torch.float32}
    return getattr(transformers, case.model).from_pretrained(folder, **more).eval()


def make_trained(folder, settings, **changes):
    """A LoRA model over a twin, all of its corrections moved, and a fresh head as if trained."""
    loaded = zoo.load_pretrained(folder, **changes)
    model = make_lora(loaded.model, settings)
    begun = flatten_dict(init_params(model))
    given = flatten_dict(loaded.params)
    key = jax.random.key(1)
    params = {
        path: given[path] if path in given else x + 0.2 * jax.random.normal(key, x.shape)
        for path, x in begun.items()
    }
    return model, unflatten_dict(params)


@pytest.mark.parametrize(
    ("name", "case", "settings", "changes"),
    [
        ("gpt2_lm", "gpt2_lm", {}, {}),
        ("gpt2_lm", "gpt2_lm", {"targets": "attn/|fc2"}, {"scan_layers": True}),
        ("llama_grouped", "llama_grouped", {"targets": "attn/(q|v)$|gate$", "rank": 2}, {}),
        ("llama_lm", "llama_classifier", {}, {"head": "sequence", "num_classes": 3}),
        ("bert_masked_lm", "bert_classifier", {}, {"head": "sequence", "num_classes": 3}),
        ("bert_answerer", "bert_answerer", {"targets": "mlp"}, {}),
        ("albert_masked_lm", "albert_masked_lm", {"alpha": 3.5}, {}),
        ("bert_masked_lm", "bert_tagger", {}, {"head": "token", "num_classes": 4}),
        ("t5_v1_1", "t5_v1_1", {"targets": "cross/|attn/k"}, {}),
    ],
)
def test_peft_loads_what_we_write(torch, peft, twin, tmp_path, name, case, settings, changes):
    case = BY_NAME[case]
    model, params = make_trained(twin(name), settings, **changes)
    expected = run_ours(model, params, case)
    zoo.save_adapter(model, params, tmp_path / "a", base=twin(name))
    theirs = load_with_head(torch, case, twin(name))
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "a").eval()
    found = run_reference(adapted.base_model.model, case, make_inputs(case))["output"]
    assert_same(found, expected, case)
    # And so do we; and transformers loads the merged weights.
    again = zoo.load_pretrained(tmp_path / "a")
    assert_same(run_ours(again.model, again.params, case), expected, case)
    zoo.save_pretrained(model, params, tmp_path / "merged")
    merged, _ = load_reference_model(case, tmp_path / "merged")
    # Classifiers find a row's end by it; a model of ours does not know its tokenizer.
    merged.config.pad_token_id = getattr(theirs.config, "pad_token_id", None)
    assert_same(run_reference(merged, case, make_inputs(case))["output"], expected, case)
