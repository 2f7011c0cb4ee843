"""What a person does with a model once it is trained or loaded: predict, embed, fill in.

`jobs.py` says how the inputs of a source become batches, `batches.py` runs them; a file each for
images, texts and rows of tables.
"""

from zoo.use.embed import Embedding, embed
from zoo.use.fill import Filled, fill_mask
from zoo.use.predict import predict
from zoo.use.predictions import Label, Prediction, Span

__all__ = ["Embedding", "Filled", "Label", "Prediction", "Span", "embed", "fill_mask", "predict"]
