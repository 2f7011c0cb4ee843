"""The losses of transformers' BERT and ELECTRA on the same weights and the same hidden tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_masked_lm import make_batch

import zoo
from zoo.tasks.masked_lm import MaskedLM, find_hidden, guess_tokens
from zoo.tasks.replaced_token import SHARED, ReplacedToken, draw_tokens, replace_tokens
from zoo.tree import COMPANIONS

pytestmark = pytest.mark.parity
SIZES = {"vocab_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 24, "max_position_embeddings": 16, "initializer_range": 0.5}


def make_rows():
    """Without a row of padding."""
    batch = make_batch(3)
    return jax.tree.map(jnp.asarray, {**batch, "mask": np.ones(6, np.float32)})


def run_theirs(torch, theirs, batch, tokens, labels):
    names = {"input_ids": tokens, "attention_mask": batch["token_mask"], "labels": labels}
    with torch.no_grad():
        given = {k: torch.tensor(np.asarray(v, np.int64)) for k, v in names.items()}
        return float(theirs(**given).loss)


def test_bert(torch, tmp_path):
    import transformers

    torch.manual_seed(0)
    theirs = transformers.BertForMaskedLM(transformers.BertConfig(hidden_size=16, **SIZES)).eval()
    theirs.save_pretrained(tmp_path)
    ours, batch = zoo.load_pretrained(tmp_path), make_rows()
    task = MaskedLM(ours.model, 20)
    loss, sums = jax.jit(lambda p: task.loss(p, batch, None))(ours.params)
    labels = np.where(batch["real"], batch["targets"], -100)
    wanted = run_theirs(torch, theirs, batch, batch["tokens"], labels)
    assert float(loss / sums["weight"]) == pytest.approx(wanted, rel=1e-5)


def test_electra(torch, tmp_path):
    import transformers

    torch.manual_seed(0)
    config = transformers.ElectraConfig(hidden_size=16, embedding_size=8, **SIZES)
    small = transformers.ElectraConfig(hidden_size=8, embedding_size=8, **SIZES)
    theirs = transformers.ElectraForPreTraining(config).eval()
    filler = transformers.ElectraForMaskedLM(small).eval()
    filler.electra.embeddings.load_state_dict(theirs.electra.embeddings.state_dict())
    theirs.save_pretrained(tmp_path / "model")
    filler.save_pretrained(tmp_path / "generator")
    ours, beside = (zoo.load_pretrained(tmp_path / name) for name in ("model", "generator"))
    kept = {k: v for k, v in beside.params.items() if k not in SHARED}
    params, batch = {**ours.params, COMPANIONS: {"generator": kept}}, make_rows()
    task = ReplacedToken(ours.model, beside.model)

    @jax.jit
    def run(params, whole):
        hidden = find_hidden(batch)
        logits = guess_tokens(beside.model, whole, batch, hidden.places, None)
        drawn = replace_tokens(batch, hidden, draw_tokens(logits, None))
        return task.loss(params, batch, None)[1], drawn

    sums, tokens = jax.device_get(run(params, beside.params))
    metrics = task.summarise(sums)
    labels = np.where(batch["real"], batch["targets"], -100)
    wanted = run_theirs(torch, filler, batch, batch["tokens"], labels)
    assert metrics["generator_loss"] == pytest.approx(wanted, rel=1e-5)
    replaced = tokens != np.asarray(batch["targets"])
    wanted = run_theirs(torch, theirs, batch, tokens, replaced)
    assert metrics["discriminator_loss"] == pytest.approx(wanted, rel=1e-5)
