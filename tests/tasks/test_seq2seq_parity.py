"""The losses of transformers' encoder-decoders on the same weights and pairs."""

import jax
import numpy as np
import pytest

import zoo
from zoo.tasks.seq2seq import SequenceToSequence

pytestmark = pytest.mark.parity
SIZES = {"vocab_size": 40, "d_model": 16}
BART = {
    **SIZES,
    **{f"{side}_layers": 2 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 24 for side in ("encoder", "decoder")},
    "max_position_embeddings": 16,
    "init_std": 0.3,
}
CASES = {
    "T5ForConditionalGeneration": (
        "T5Config",
        {**SIZES, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2,
         "decoder_start_token_id": 0},
        0,
    ),
    "MarianMTModel": (
        "MarianConfig",
        {**BART, "pad_token_id": 39, "decoder_start_token_id": 39, "eos_token_id": 1},
        39,
    ),
    "BartForConditionalGeneration": ("BartConfig", BART, 2),
}  # fmt: skip


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", CASES)
def test_loss(torch, tmp_path, name, smoothing):
    """Theirs shift the labels themselves; what is padded is -100."""
    import transformers

    config, fields, begin = CASES[name]
    torch.manual_seed(0)
    theirs = getattr(transformers, name)(getattr(transformers, config)(**fields)).eval()
    theirs.save_pretrained(tmp_path)
    ours = zoo.load_pretrained(tmp_path)
    random = np.random.default_rng(5)
    source, target = random.integers(3, 38, (2, 5, 9)).astype(np.int32)
    masks = [np.arange(9) < random.integers(3, 10, (5, 1)) for _ in range(2)]
    labels = torch.tensor(np.where(masks[1], target, -100), dtype=torch.long)
    with torch.no_grad():
        out = theirs(
            input_ids=torch.tensor(source, dtype=torch.long),
            attention_mask=torch.tensor(masks[0].astype(np.int64)),
            labels=labels,
        )
        logits = out.logits.reshape(-1, out.logits.shape[-1])
        smoothed = torch.nn.functional.cross_entropy(
            logits, labels.reshape(-1), ignore_index=-100, label_smoothing=smoothing
        )
    if not smoothing:
        assert float(smoothed) == pytest.approx(float(out.loss), rel=1e-6)
    # In training mode what is trained on; without dropout, as theirs.
    model = ours.model.clone(dropout=0.0)
    task = SequenceToSequence(model, None, end=1, begin=begin, label_smoothing=smoothing)
    batch = {"source": source, "target": target}
    batch |= {"source_mask": masks[0], "target_mask": masks[1]}
    batch["mask"] = np.ones(5, np.float32)
    key = jax.random.key(0)
    loss, sums = jax.jit(lambda p, b: task.loss(p, b, key))(ours.params, batch)
    assert float(loss / sums["weight"]) == pytest.approx(float(smoothed), rel=2e-5)
    assert float(sums["loss"] / sums["weight"]) == pytest.approx(float(out.loss), rel=2e-5)
