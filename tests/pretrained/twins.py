"""Twins: small transformers models with disturbed weights, and what they compute.

The table `CASES` holds each published variation of the families at least once. `make_twin` writes
a folder as a hub holds it (`config.json`, `model.safetensors`) and beside them
`reference.safetensors`:

* the inputs `tokens`, `mask`, `types`; `images` `[b, y, x, ch]`; or `source`, `source_mask`,
  `target`, `target_mask` (masks as uint8, 1 where real),
* `output`: logits, or the last hidden state of a model without a head; `pooled` where there is
  one (it takes no part in the gradients),
* `hidden/NN` (T5: `encoder/hidden/NN`, `decoder/hidden/NN`): what layer NN gave,
* `cotangent`, shaped like the output and zero on padding, and `grad/KEY`: the gradient of
  `(output * cotangent).sum() / b` for each parameter that has one, by its key in the file.

Reference numbers are computed in float64 and stored in float32: torch's own float32 can be farther
from them than the tests allow. torch and transformers are imported only where they are used.
"""

from __future__ import annotations

import json
import pathlib
import tempfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import twin_cases_decoder as decoder
import twin_cases_encoder as encoder
import twin_cases_seq2seq as seq2seq
import twin_cases_towers as towers
import twin_cases_vision as vision
from safetensors.numpy import load_file, save_file

FOLDER = pathlib.Path(__file__).parent / "twins"
"""The recorded twins, a folder a case."""

OTHERS: tuple[Any, ...] = (encoder, decoder, seq2seq, vision, towers)
LAYERS = ("ViTLayer", "GPT2Block", "BertLayer", "AlbertLayer", "LlamaDecoderLayer")
LAYERS += tuple(layer for module in OTHERS for layer in module.LAYERS)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One twin: which class, from which config, on which inputs."""

    name: str
    model: str  # the class in transformers
    config: str
    arguments: dict[str, Any]
    # tokens, types (tokens and token types), choices (three a row), images, masked, noise, pair,
    # shifted (the target is the source's)
    inputs: str
    length: int  # of a row of tokens; a pair's target is two shorter
    # config.json says only what `arguments` say, under the old names, as most files on the hub do;
    # otherwise it is what transformers 5 writes, every default included.
    published: bool
    recorded: bool

    @property
    def has_own_t5_head(self) -> bool:
        """T5 v1.1 as published. A fresh T5 of transformers 5 is tied whatever its config says."""
        untied = self.arguments.get("tie_word_embeddings") is False
        return self.model.endswith("T5ForConditionalGeneration") and untied and self.published


VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 8,
    "patch_size": 4,
}
GPT2 = {
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 24,
    "vocab_size": 50,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "vocab_size": 50,
}


FAMILIES = {
    "vit": ("ViT", VIT, "images"),
    "gpt2": ("GPT2", GPT2, "tokens"),
    "llama": ("Llama", LLAMA, "tokens"),
}
for _module in OTHERS:
    FAMILIES |= _module.FAMILIES
CONFIGS = decoder.CONFIGS  # where a config's class begins otherwise than its models'


def _case(name, head, *, inputs="", length=9, published=False, recorded=True, **arguments) -> Case:
    """The family, before the first `_`, gives the rest; `arguments` change its config."""
    prefix, base, usual = FAMILIES[name.split("_")[0]]
    config = {**base, **arguments}
    kind = f"{CONFIGS.get(prefix, prefix)}Config"
    return Case(name, prefix + head, kind, config, inputs or usual, length, published, recorded)


CASES: tuple[Case, ...] = (
    _case("vit_classifier", "ForImageClassification", num_labels=5),
    _case("vit_published", "ForImageClassification", num_labels=5, published=True),
    _case("vit_pooler", "Model", layer_norm_eps=1e-6),
    _case("vit_oblong", "ForImageClassification", image_size=[8, 12], hidden_act="gelu_new"),
    _case("vit_grey", "ForImageClassification", num_channels=1, qkv_bias=False, hidden_act="relu"),
    _case("vit_tanh", "Model", hidden_act="gelu_pytorch_tanh", qkv_bias=False, recorded=False),
    _case("gpt2_lm", "LMHeadModel", published=True),
    _case("gpt2_headless", "Model", layer_norm_epsilon=1e-6),
    _case("gpt2_relu", "LMHeadModel", activation_function="relu", n_inner=40),
    _case("gpt2_gelu", "LMHeadModel", activation_function="gelu", recorded=False),
    _case("gpt2_untied", "LMHeadModel", tie_word_embeddings=False),
    _case("gpt2_classifier", "ForSequenceClassification", pad_token_id=0, num_labels=3),
    _case("llama_lm", "ForCausalLM"),
    _case("llama_grouped", "ForCausalLM", num_key_value_heads=2, rms_norm_eps=1e-5, published=True),
    _case("llama_one_key", "ForCausalLM", num_key_value_heads=1, hidden_act="gelu"),
    _case(
        "llama_tied",
        "ForCausalLM",
        tie_word_embeddings=True,
        rope_theta=500000.0,
        published=True,
    ),
    _case("llama_biased", "ForCausalLM", attention_bias=True, mlp_bias=True, rms_norm_eps=1e-5),
    _case("llama_wide_heads", "ForCausalLM", head_dim=6, num_key_value_heads=2, rope_theta=5e5),
    _case("llama_headless", "Model"),
    _case("llama_classifier", "ForSequenceClassification", pad_token_id=0, num_labels=3),
)
CASES += tuple(
    _case(name, head, **fields) for module in OTHERS for name, head, fields in module.CASES
)


def make_twin(case: Case, folder: str | pathlib.Path) -> None:
    """Writes `config.json`, `model.safetensors` and `reference.safetensors` into the folder."""
    import torch

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = _build_model(case)
    model.save_pretrained(folder)
    vision.rename_as_published(folder / "model.safetensors")
    (folder / "generation_config.json").unlink(missing_ok=True)  # only models that generate have it
    if case.published:
        _rewrite_config(case, folder / "config.json")
    inputs = make_inputs(case)
    results = _forward(model.double(), case, inputs)
    cotangent = _make_cotangent(case, inputs, results["output"].shape)
    loss = (results["output"] * torch.tensor(cotangent)).sum() / len(cotangent)
    loss.backward()
    arrays = {name: array.detach().numpy() for name, array in results.items()}
    arrays |= {"cotangent": cotangent, **_collect_gradients(model)}
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    save_file({**inputs, **arrays}, folder / "reference.safetensors")


def make_inputs(case: Case) -> Arrays:
    """Two rows; of tokens, the second is padded on the right with token 0."""
    random = np.random.default_rng(_seed(case))
    if case.inputs in vision.INPUTS:
        return vision.make_inputs(case, random)
    if case.inputs in ("towers", "texts"):
        return towers.make_tower_inputs(case, random)
    vocabulary = case.arguments["vocab_size"]
    tokens, mask = _make_tokens(random, vocabulary, case.length, padding=3)
    if case.inputs == "shifted":
        tokens[[0, 1], mask.sum(1) - 1] = 2  # the end of a text, from where it is classified
        pair = {"source": tokens, "source_mask": mask, "target_mask": mask}
        return {**pair, "target": np.roll(tokens, 1, axis=1) * mask.astype(np.int32)}
    if case.inputs == "pair":
        target, target_mask = _make_tokens(random, vocabulary, case.length - 2, padding=2)
        target[:, 0] = 0  # T5 begins to write from its padding token
        inputs = {"source": tokens, "source_mask": mask}
        return {**inputs, "target": target, "target_mask": target_mask}
    if case.inputs == "choices":
        drawn = [_make_tokens(random, vocabulary, case.length, padding) for padding in (1, 2, 3)]
        tokens, mask = (np.stack(parts, axis=1) for parts in zip(*drawn, strict=True))
    inputs = {"tokens": tokens + (1 - mask) * case.arguments.get("pad_token_id", 0), "mask": mask}
    if case.inputs == "types":
        inputs["types"] = np.where(np.arange(case.length) >= [[4], [2]], mask, 0).astype(np.int32)
    return inputs


def load_reference_model(case: Case, folder: str | pathlib.Path):
    """The folder through transformers, in float32: (model, what it says of missing keys).

    T5's own head needs no help here: transformers 5 unties it when the file's head differs from
    the embedding.
    """
    import torch
    import transformers

    model, info = getattr(transformers, case.model).from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    return model.eval(), info


def run_reference(model, case: Case, inputs: Arrays) -> Arrays:
    """`output`, `pooled` and the hidden states of a transformers model, in its own precision."""
    import torch

    with torch.no_grad():
        return {name: array.numpy() for name, array in _forward(model, case, inputs).items()}


def _seed(case: Case) -> int:
    return zlib.crc32(case.name.encode())


def _build_model(case: Case):
    """The model with every parameter moved, so that no two are equal and no bias is zero."""
    import torch
    import transformers

    config = getattr(transformers, case.config)(**case.arguments)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"  # the others know no float64
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(_seed(case))
        model = getattr(transformers, case.model)(config).eval()
        if case.has_own_t5_head:
            model.lm_head = torch.nn.Linear(config.d_model, config.vocab_size, bias=False)
        if hasattr(model, "final_logits_bias"):  # a buffer of theirs: moved, and with a gradient
            model.final_logits_bias = torch.nn.Parameter(model.final_logits_bias)
        for module in model.modules():
            if type(module).__name__ in ("T5LayerNorm", "MT5LayerNorm"):
                module.weight.fill_(1)  # the initializer factor shrinks T5's norms too
        for parameter in model.parameters():  # yields a tied one once
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
        # Small embeddings show the first norm's epsilon; large kernels show the form of the
        # activation and sharpen the attention (T5's is sharper by itself: its scores are not
        # scaled). A tied head is an embedding.
        gain = 3 if case.config in ("T5Config", "MT5Config") else 5
        for module in model.modules():
            is_kernel = isinstance(module, (torch.nn.Linear, transformers.pytorch_utils.Conv1D))
            if is_kernel and module is not model.get_output_embeddings():
                module.weight.mul_(gain)
            if type(module).__name__.endswith("Experts"):
                for parameter in module.parameters():
                    parameter.mul_(gain)
    return model


def _rewrite_config(case: Case, path: pathlib.Path) -> None:
    """Leaves in config.json what a published one says."""
    saved = json.loads(path.read_text())
    names = ("architectures", "model_type", "id2label", "label2id")
    config = {name: saved[name] for name in names if name in saved} | {"torch_dtype": "float32"}
    config |= {name: value for name, value in case.arguments.items() if name != "num_labels"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _make_tokens(random, vocabulary: int, length: int, padding: int):
    """Tokens `[2, length]` and their mask; none of the real ones is 0, which pads."""
    tokens = random.integers(3, vocabulary, (2, length)).astype(np.int32)
    mask = np.ones((2, length), np.uint8)
    mask[1, -padding:] = 0
    return tokens * mask.astype(np.int32), mask


def _make_cotangent(case: Case, inputs: Arrays, shape) -> np.ndarray:
    """Drawn apart from the inputs; zero where a row of tokens is padded."""
    cotangent = np.random.default_rng(_seed(case) + 1).normal(size=shape).astype(np.float32)
    mask = inputs.get("target_mask", inputs.get("mask"))
    if mask is None or shape[:2] != mask.shape:
        return cotangent
    return cotangent * mask.reshape(*mask.shape, *[1] * (len(shape) - 2))


def _forward(model, case: Case, inputs: Arrays) -> dict[str, Any]:
    """As `run_reference`, in tensors that know their gradients."""
    import torch

    hidden: dict[str, list] = {}
    hooks = []
    for path, module in model.named_modules():
        if type(module).__name__ in LAYERS:
            side = "hidden"
            if "target" in inputs:
                side = "decoder/hidden" if "decoder." in path else "encoder/hidden"
            side = vision.name_side(path) if case.inputs == "noise" else side
            if case.inputs == "towers":
                side = f"{towers.SIDES[path.split('.')[0]]}/hidden"
            outputs = hidden.setdefault(side, [])  # a shared layer adds one at each call
            hooks.append(module.register_forward_hook(lambda *x, to=outputs: to.append(x[-1])))
    try:
        result = model(**_name_inputs(inputs, model.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    tensors = towers.pick_tower_outputs(result, case) or {"output": _pick_output(result)}
    if getattr(result, "pooler_output", None) is not None and case.inputs != "texts":
        tensors["pooled"] = result.pooler_output
    for side, outputs in hidden.items():
        for i, output in enumerate(outputs):
            is_tensor = isinstance(output, torch.Tensor)  # T5's layers give their biases too
            tensors[f"{side}/{i:02}"] = output if is_tensor else output[0]
    return tensors


def _name_inputs(inputs: Arrays, dtype) -> dict[str, Any]:
    """Our names to theirs."""
    import torch

    if "images" in inputs and "tokens" not in inputs:
        return vision.name_inputs(inputs, dtype)
    names = {
        "tokens": "input_ids",
        "mask": "attention_mask",
        "types": "token_type_ids",
        "source": "input_ids",
        "source_mask": "attention_mask",
        "target": "decoder_input_ids",
        "target_mask": "decoder_attention_mask",
    }
    named = {names[k]: torch.tensor(inputs[k]).long() for k in inputs if k != "images"}
    if "images" in inputs:
        pixels = torch.tensor(inputs["images"].transpose(0, 3, 1, 2), dtype=dtype)
        named["pixel_values"] = pixels
    return named


def _pick_output(result):
    import torch

    if hasattr(result, "start_logits"):
        return torch.stack([result.start_logits, result.end_logits], -1)
    return result.logits if hasattr(result, "logits") else result.last_hidden_state


def _collect_gradients(model) -> Arrays:
    """`grad/KEY` for each key of the file whose parameter has a gradient; spends the model.

    The gradients take the parameters' places and are saved, so that whatever transformers renames
    or leaves out on saving, it does to them too. ViT's files and modules differ in their names.
    """
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.nan if parameter.grad is None else parameter.grad)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        vision.rename_as_published(pathlib.Path(folder) / "model.safetensors")
        arrays = load_file(pathlib.Path(folder) / "model.safetensors")
    return {f"grad/{key}": array for key, array in arrays.items() if not np.isnan(array).all()}
