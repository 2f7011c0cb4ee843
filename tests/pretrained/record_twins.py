"""Makes the recorded twins again: `python tests/pretrained/record_twins.py`.

Prints for each its size and how far transformers' own float32, loaded from the folder, lies from
the recorded numbers, relative to the largest magnitude of each array.
"""

from __future__ import annotations

import pathlib
import shutil

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file
from twins import CASES, FOLDER, Case, load_reference_model, make_inputs, make_twin, run_reference


def compare_float32(case: Case, folder: pathlib.Path) -> float:
    """The worst relative difference of the folder's model from the folder's reference."""
    reference = load_file(folder / "reference.safetensors")
    model, info = load_reference_model(case, folder)
    strangers = {name: keys for name, keys in info.items() if keys}
    if strangers:
        print(f"  {case.name}: transformers on loading: {strangers}")
    results = run_reference(model, case, make_inputs(case))
    scales = {name: np.abs(reference[name]).max() for name in results}
    return max(np.abs(results[name] - reference[name]).max() / scales[name] for name in results)


def main() -> None:
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    shutil.rmtree(FOLDER, ignore_errors=True)
    total = 0
    for case in (case for case in CASES if case.recorded):
        folder = FOLDER / case.name
        make_twin(case, folder)
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{case.name:18} {size:8,} bytes  float32 {compare_float32(case, folder):.1e}")
        total += size
    print(f"{'total':18} {total:8,} bytes")


if __name__ == "__main__":
    main()
