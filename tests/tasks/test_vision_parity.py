"""The losses of transformers' MAE, CLIP and SigLIP on the same weights and examples."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.tasks.contrastive import Contrastive
from zoo.tasks.image_keys import make_keys
from zoo.tasks.masked_image import MaskedImage

pytestmark = pytest.mark.parity
LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LAYERS |= {"intermediate_size": 24}
IMAGES = {**LAYERS, "image_size": 8, "patch_size": 4, "initializer_range": 0.5}
TEXTS = {**LAYERS, "vocab_size": 30, "max_position_embeddings": 6, "initializer_range": 0.5}
TEXTS |= {"bos_token_id": 1, "eos_token_id": 29, "pad_token_id": 0}
IMAGES_OF_FIVE = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype(np.float32)
TOKENS = np.array([[3, 29, 0], [5, 7, 29], [4, 6, 29], [9, 29, 0], [2, 8, 29]])
TOKENS = np.pad(TOKENS, ((0, 0), (0, 3)))


def as_theirs(torch, images):
    return torch.tensor(images.transpose(0, 3, 1, 2))


def save_and_load(model, folder):
    model.save_pretrained(folder)
    return zoo.load_pretrained(folder)


def find_loss(task, params, batch):
    loss, sums = jax.jit(lambda p, b: task.loss(p, b, None))(params, batch)
    return float(loss / sums["weight"])


@pytest.mark.parametrize("normed", [False, True])
def test_masked_image(torch, tmp_path, normed):
    import transformers

    torch.manual_seed(0)
    sizes = {"decoder_hidden_size": 12, "decoder_num_hidden_layers": 1}
    sizes |= {"decoder_num_attention_heads": 3, "decoder_intermediate_size": 20}
    config = transformers.ViTMAEConfig(**{**IMAGES, "image_size": 16}, **sizes)
    theirs = transformers.ViTMAEForPreTraining(config).eval()
    theirs.config.norm_pix_loss = normed
    loaded = save_and_load(theirs, tmp_path)
    assert loaded.model.normed_pixels == normed
    images = np.random.default_rng(1).normal(size=(3, 16, 16, 3)).astype(np.float32)
    draw = lambda k: jax.random.uniform(k, (16,))
    noise = np.asarray(jax.vmap(draw)(make_keys(None, jnp.asarray(images))))
    with torch.no_grad():
        turned = as_theirs(torch, images)
        wanted = theirs(pixel_values=turned, noise=torch.tensor(noise)).loss.item()
    batch = {"image": images, "mask": np.ones(3, np.float32)}
    got = find_loss(MaskedImage(loaded.model), loaded.params, batch)
    assert got == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", ["CLIP", "Siglip"])
def test_contrastive(torch, tmp_path, name):
    """Two rows of padding behind the five examples are no negatives."""
    import transformers

    torch.manual_seed(0)
    width = {"projection_dim": 8} if name == "CLIP" else {}
    config = getattr(transformers, f"{name}Config")(
        text_config={**TEXTS, **({} if width else {"projection_size": 16})},
        vision_config=IMAGES,
        **width,
    )
    theirs = getattr(transformers, f"{name}Model")(config).eval()
    with torch.no_grad():
        theirs.logit_scale.fill_(1.5)
        mask = torch.tensor(TOKENS > 0) if name == "CLIP" else None
        wanted = theirs(
            pixel_values=as_theirs(torch, IMAGES_OF_FIVE),
            input_ids=torch.tensor(TOKENS),
            attention_mask=mask,
            return_loss=True,
        ).loss.item()
    loaded = save_and_load(theirs, tmp_path)
    info = SimpleNamespace(tokenizer=SimpleNamespace(has_template=True, end=29, pad=0))
    task = Contrastive.create(loaded.model, info)
    two = lambda x: np.concatenate([x, x[:2]])
    tokens = two(TOKENS).astype(np.int32)
    batch = {"image": two(IMAGES_OF_FIVE), "tokens": tokens, "token_mask": tokens > 0}
    batch["mask"] = np.array([1, 1, 1, 1, 1, 0, 0], np.float32)
    assert find_loss(task, loaded.params, batch) == pytest.approx(wanted, rel=1e-5)
