"""Published folders made of the recorded twins: their weights with a tokenizer or labels beside."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

TWINS = pathlib.Path(__file__).parent / "pretrained" / "twins"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "in"]
WORDS += ["park", "is", "was", "red", "big", "small", "happy", "and", "not"]
PIECES = [*WORDS, *"abcdefgh", *(f"##{x}" for x in "stuv"), "##ing", "##s", ".", ",", "?"]


def write_wordpiece(folder: pathlib.Path, size: int) -> list[str]:
    """vocab.txt and its settings, of `size` tokens; returns the words."""
    tokens = [*SPECIAL, *PIECES]
    tokens = tokens[:size] + [f"[unused{i}]" for i in range(size - len(tokens))]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokens


def copy_twin(name: str, folder: pathlib.Path, **config: Any) -> pathlib.Path:
    """A recorded twin's config.json, with some keys changed, and its weights."""
    folder.mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        shutil.copy(TWINS / name / file, folder / file)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **config}))
    return folder


def name_labels(*names: str) -> dict[str, Any]:
    """The labels of a config.json."""
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def write_word_level(folder: pathlib.Path, size: int, pad: str = "<pad>") -> None:
    """tokenizer.json of `size` whole words, with <s> and </s> around a text, and its settings."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *PIECES][:size]
    tokens += [f"<unused{i}>" for i in range(size - len(tokens))]
    write_json_tokenizer(folder, tokens, ("<s>", "</s>"), pad)


def write_json_tokenizer(
    folder: pathlib.Path, tokens: list[str], around: tuple[str, str], pad: str
) -> None:
    """tokenizer.json of whole words, and settings that name its padding token."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors

    ids = {token: i for i, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens([t for t in tokens[:5] if t.startswith("<")])
    first, last = around
    backend.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} {last} $B {last}",
        special_tokens=[(first, ids[first]), (last, ids[last])],
    )
    backend.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": pad,
        "unk_token": "<unk>",
        "model_max_length": 10**6,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_towers(transformers: Any, folder: pathlib.Path, name: str) -> tuple[Any, Any]:
    """Tokenizer and image processor of a twin of CLIP or SigLIP, of which they are returned."""
    clip = name.startswith("clip")
    # CLIP's old files are read at the highest token: the end is the last of the vocabulary. SigLIP
    # pads with the token that ends its texts, not with the one called <pad>.
    tokens = ["<s>", "<pad>", "<unk>", *PIECES[:26], "</s>"]
    write_json_tokenizer(folder, tokens, ("<s>", "</s>"), "<pad>" if clip else "</s>")
    kind = "CLIPImageProcessorPil" if clip else "SiglipImageProcessorPil"
    sizes = {"size": {"height": 9, "width": 9}}
    if clip:
        sizes = {"size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}}
    processor = getattr(transformers, kind)(**sizes)
    processor.save_pretrained(folder)
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder), processor
