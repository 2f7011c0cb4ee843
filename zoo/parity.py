"""`zoo parity SRC`: published weights through transformers and through us, layer by layer."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from zoo.config import UserError
from zoo.console import align
from zoo.models.clip import TextTower, TwoTowers
from zoo.models.seq2seq import Seq2Seq
from zoo.models.transformer import Transformer
from zoo.pretrained import load_pretrained
from zoo.pretrained.describe import family_of
from zoo.pretrained.family import head_of
from zoo.pretrained.sources import Source, find_source

LAYERS: tuple[str, ...] = (
    "ViTMAELayer",
    *("DeiTLayer", "Dinov2Layer", "Dinov2WithRegistersLayer"),
    *("ViTLayer", "GPT2Block", "LlamaDecoderLayer"),
    *("BertLayer", "AlbertLayer", "ElectraLayer", "RobertaLayer", "XLMRobertaLayer"),
    "TransformerBlock",  # DistilBERT's
    *("T5Block", "MT5Block", "MarianEncoderLayer", "MarianDecoderLayer"),
    *("BartEncoderLayer", "BartDecoderLayer", "MBartEncoderLayer", "MBartDecoderLayer"),
    *("CLIPEncoderLayer", "SiglipEncoderLayer"),
    *("MistralDecoderLayer", "MixtralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"),
    *("GemmaDecoderLayer", "Gemma2DecoderLayer", "Gemma3DecoderLayer"),
)
LENGTH = 33  # odd, and far enough for T5 to pool distances
PADDING = 5
SIDES = ("encoder", "decoder")
PAIRS = (Seq2Seq, Transformer)  # take a source and a target
TOWERS = {"vision_model": "image", "text_model": "text"}  # theirs -> ours
# Our inputs -> theirs.
NAMES = {
    "tokens": "input_ids",
    "types": "token_type_ids",
    "mask": "attention_mask",
    "source": "input_ids",
    "source_mask": "attention_mask",
    "target": "decoder_input_ids",
    "target_mask": "decoder_attention_mask",
}

OUTPUTS = ("logits", "prediction_logits", "logits_per_image", "image_embeds", "text_embeds")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """How far apart the outputs of a layer are."""

    name: str
    absolute: float  # the largest difference
    relative: float  # that, to the largest magnitude of theirs or 1


@dataclass(frozen=True)
class Comparison:
    """Layers from the input on, and what transformers says of the keys in the file."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def print_parity(source: str, tolerance: float = 1e-4) -> bool:
    """`zoo parity`: prints the table and what follows from it; is a layer over the tolerance?

    Raises UserError as `compare` does.
    """
    found = compare(source)
    over = [row for row in found.rows if not row.relative <= tolerance]  # NaN is over it too
    table = [("layer", "difference", "relative", "")]
    for row in found.rows:
        flag = "over" if row in over else ""
        table.append((row.name, show_small(row.absolute), show_small(row.relative), flag))
    print("\n".join(align(table, right={1, 2})))
    for note in found.notes:
        print(note)
    if over:
        print(f"first over tolerance: {over[0].name} (relative {show_small(over[0].relative)})")
        return True
    worst = max(found.rows, key=lambda row: row.relative)
    print(
        f"all {len(found.rows)} layers agree within {show_small(tolerance)}: "
        f"largest relative difference {show_small(worst.relative)} at {worst.name}"
    )
    return False


def compare(source: Any) -> Comparison:
    """Runs both on one random input, on the CPU of torch and the device of JAX, in float32.

    Places that are padded do not count. Raises UserError without torch and transformers, on a
    source that is not of transformers' layout, and where one of the two cannot load or run it.
    """
    torch, transformers = _import_peers()
    found = find_source(source)
    if found.layout != "hf":
        raise UserError(
            f"{found.place}: zoo parity needs a folder or hub id of transformers' layout "
            f"(config.json with model_type), this one is of layout {found.layout!r}"
        )
    loaded = load_pretrained(found.folder, dtype="float32")
    with _silence(transformers):
        peer, notes = _load_peer(torch, transformers, found, loaded.model)
    padding = _choose_padding(peer.config, loaded.model)
    end = getattr(peer.config, "eos_token_id", None)
    inputs = make_inputs(loaded.model, padding, end if isinstance(end, int) else 2)
    try:
        theirs = run_peer(torch, peer, inputs)
    except (RuntimeError, ValueError, IndexError) as error:  # such as DINOv2's on oblong images
        raise UserError(f"transformers cannot run {found.place}: {first_line(error)}") from error
    ours = run_model(loaded.model, loaded.params, inputs)
    if theirs["output"].ndim == 3 and "encoded" in ours:
        ours["output"] = ours["encoded"]  # what transformers' headless ViT returns
    # ViT and BERT without a pooler's weights: theirs is drawn at random, ours is another thing.
    names = [name for name in theirs if name in ours]
    return Comparison(
        tuple(_measure(name, ours[name], theirs[name], inputs) for name in names), notes
    )


def _import_peers() -> tuple[Any, Any]:
    try:
        return importlib.import_module("torch"), importlib.import_module("transformers")
    except ImportError:
        raise UserError(
            "zoo parity needs torch and transformers: pip install -e '.[parity]'"
        ) from None


@contextlib.contextmanager
def _silence(transformers: Any) -> Iterator[None]:
    """No progress bars or warnings: what there is to say, we say."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _load_peer(
    torch: Any, transformers: Any, source: Source, ours: Any
) -> tuple[Any, tuple[str, ...]]:
    """Their model, and a line for each kind of key it did not find or has no place for."""
    # The class that is named first; an old file may name one that is gone (T5WithLMHeadModel).
    heads, named = family_of(source).heads, source.config.get("architectures") or []
    same = [name for name, head in heads.items() if head == head_of(ours)]
    same.sort(key=lambda name: name not in named)
    name = next(name for name in same if hasattr(transformers, name))
    try:
        model, info = getattr(transformers, name).from_pretrained(
            str(source.folder),
            attn_implementation="eager",
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"transformers cannot load {source.place}: {first_line(error)}") from error
    told = {
        "missing_keys": "transformers finds no such keys and begins them at random",
        "unexpected_keys": "transformers leaves aside",
        "mismatched_keys": "transformers finds another shape of",
    }
    notes = [f"{told[k]}: {', '.join(map(str, sorted(info[k])))}" for k in told if info.get(k)]
    return model.eval(), tuple(notes)


def first_line(error: Exception) -> str:
    """What an error says, or its name."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _choose_padding(config: Any, model: Any) -> int:
    """The padding token, by which transformers' classifiers find a row's end; written there where
    the config has none that can be embedded."""
    padding = getattr(config, "pad_token_id", None)
    if hasattr(model, "image_size") or isinstance(model, TextTower):
        return 0
    if padding is None or not 0 <= padding < model.vocab_size:
        config.pad_token_id = padding = 0
    return padding


def make_inputs(model: Any, padding: int = 0, end: int = 2) -> Arrays:
    """Two images or two rows of tokens by our names, always the same; the second row is padded."""
    random = np.random.default_rng(0)
    if hasattr(model, "image_size") and not isinstance(model, TwoTowers):
        specs = dict(zip(("images", "noise"), model.input_specs(2), strict=False))
        return {k: random.normal(size=spec.shape).astype(np.float32) for k, spec in specs.items()}

    def make_rows(length: int, words: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        last = max((words or model.vocab_size) - 1, 1)
        tokens = random.integers(0, last, (2, length)).astype(np.int32)
        tokens += tokens >= padding  # a real token never looks like padding
        mask = np.ones((2, length), bool)
        mask[1, max(length - PADDING, 1) :] = False
        return np.where(mask, tokens, padding).astype(np.int32), mask

    if isinstance(model, PAIRS):
        length = min(LENGTH, getattr(model, "num_positions", LENGTH))
        source, source_mask = make_rows(length)
        if model.head in ("sequence", "span"):
            return _shift(source, source_mask, padding, end)
        words = getattr(model, "target_vocab_size", None)
        target, target_mask = make_rows(max(length - 6, 1), words)
        masks = {"source_mask": source_mask, "target_mask": target_mask}
        return {"source": source, "target": target, **masks}
    tokens, mask = make_rows(min(LENGTH, model.input_specs()[-1].shape[1]))
    inputs = {"tokens": tokens, "mask": mask}
    if hasattr(model, "end_token") and model.end_token < model.vocab_size:
        tokens[[0, 1], mask.sum(1) - 1] = model.end_token  # where a text tower is read
    if isinstance(model, TwoTowers):
        shape = (2, *model.image_size, model.num_channels)
        inputs["images"] = random.normal(size=shape).astype(np.float32)
    if getattr(model, "num_types", 0) > 1:
        inputs["types"] = ((np.arange(tokens.shape[1]) > 3) & mask).astype(np.int32)
    return inputs


def _shift(source: np.ndarray, mask: np.ndarray, padding: int, end: int) -> Arrays:
    """Texts with one end each, by which BART's classifier finds its place, and they themselves a
    place later as the target."""
    other = min({0, 1, 2} - {padding, end})
    source = np.where(source == end, other, source)
    source[[0, 1], mask.sum(1) - 1] = end
    target = np.where(mask, np.roll(source, 1, axis=1), padding)
    target[:, 0] = end
    target = target.astype(np.int32)
    return {"source": source, "target": target, "source_mask": mask, "target_mask": mask}


def run_model(model: Any, params: Any, inputs: Arrays) -> Arrays:
    """Name of a layer -> our output."""

    @jax.jit
    def run(params: Any, inputs: Any) -> dict[str, Any]:
        """Layers in their order, then what the heads say."""
        output, aux = model.apply({"params": params}, **inputs)
        sides = [side for side in (*SIDES, *TOWERS.values()) if side in aux]
        stacks = {f"{side}/": aux[side]["hidden"] for side in sides} or {"": aux["hidden"]}
        found = {
            f"{side}blocks/{i:02}": hidden[i]
            for side, hidden in stacks.items()
            for i in range(len(hidden))
        }
        found["output"] = output
        if "encoded" in aux and not isinstance(model, PAIRS):
            found["encoded"] = aux["encoded"]
        has_pooler = getattr(model, "pooler", False) or getattr(model, "pre_logits", False)
        return {**found, "pooled": aux["pooled"]} if has_pooler else found

    # Accelerators round the factors of float32 products unless told otherwise.
    with jax.default_matmul_precision("highest"):
        found = run(params, jax.tree.map(jax.numpy.asarray, inputs))
    return {name: np.asarray(array) for name, array in found.items()}


def run_peer(torch: Any, model: Any, inputs: Arrays) -> Arrays:
    """Name of a layer -> their output, in the order of the layers."""
    found: dict[str, Any] = {}
    counts: dict[str, int] = {}

    def keep(side: str, output: Any) -> None:
        number = counts[side] = counts.get(side, -1) + 1  # ALBERT calls one layer several times
        found[f"{side}blocks/{number:02}"] = output[0] if isinstance(output, tuple) else output

    hooks = []
    for path, module in model.named_modules():
        if type(module).__name__ in LAYERS:
            side = ""
            if "source" in inputs or "noise" in inputs:
                side = "decoder/" if "decoder." in path else "encoder/"
            elif {"tokens", "images"} <= inputs.keys():
                side = f"{TOWERS[path.split('.')[0]]}/"
            hooks.append(
                module.register_forward_hook(lambda *args, side=side: keep(side, args[-1]))
            )
    tensors = _name_inputs(torch, inputs)
    is_choice = type(model).__name__.endswith("ForMultipleChoice")
    if is_choice:  # the rows are the choices of one question
        tensors = {name: tensor[None] for name, tensor in tensors.items()}
    try:
        with torch.no_grad():
            result = model(**tensors)
    finally:
        for hook in hooks:
            hook.remove()
    found["output"] = _pick_output(torch, result)
    if is_choice:
        found["output"] = found["output"][0]
    if type(model).__name__.startswith(("CLIP", "Siglip")) and hasattr(result, "pooler_output"):
        found["output"] = result.pooler_output  # as our towers without a projection
    elif getattr(result, "pooler_output", None) is not None:
        found["pooled"] = result.pooler_output
    return {name: tensor.numpy() for name, tensor in found.items()}


def _name_inputs(torch: Any, inputs: Arrays) -> dict[str, Any]:
    named = {NAMES[k]: torch.tensor(inputs[k]).long() for k in inputs if k in NAMES}
    if "images" in inputs:
        named["pixel_values"] = torch.tensor(inputs["images"].transpose(0, 3, 1, 2))
    if "noise" in inputs:
        named["noise"] = torch.tensor(inputs["noise"])
    return named


def _pick_output(torch: Any, result: Any) -> Any:
    if hasattr(result, "start_logits"):
        return torch.stack([result.start_logits, result.end_logits], -1)
    for name in OUTPUTS:
        if getattr(result, name, None) is not None:
            return getattr(result, name)
    return result.last_hidden_state


def _measure(name: str, ours: np.ndarray, theirs: np.ndarray, inputs: Arrays) -> Row:
    """Raises UserError on two shapes."""
    if ours.shape != theirs.shape:
        raise UserError(f"{name}: ours is {ours.shape}, that of transformers {theirs.shape}")
    if name.startswith("image/"):
        inputs = {}
    mask = inputs.get("source_mask" if name.startswith("encoder") else "target_mask")
    mask = inputs.get("mask") if mask is None else mask
    if mask is not None and ours.ndim == 3:
        ours, theirs = ours[mask], theirs[mask]
    absolute = float(np.abs(ours - theirs).max())
    return Row(name, absolute, absolute / max(float(np.abs(theirs).max()), 1.0))


def show_small(number: float) -> str:
    """0.00012 -> '1.2e-4'."""
    if not number or not math.isfinite(number):
        return f"{number:g}"
    mantissa, exponent = f"{number:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
