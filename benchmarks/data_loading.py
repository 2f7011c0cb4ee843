"""Reading beside PyTorch's DataLoader, in turns A B A B; and how long a run waits for its data.

    pip install -e '.[bench]'
    python benchmarks/data_loading.py               # all entries
    python benchmarks/data_loading.py images        # some

`images`: JPEGs of about 500 x 375 in a folder, which it writes itself into the temporary folder,
decoded, cropped, resized to 224, flipped and normalised. `arrays`: images of MNIST's size in
memory. `windows` of a corpus and padded `rows` of tokens; `tokenising` beside the `tokenizers`
library's own batch call on all cores. Each line is as side_by_side.py prints it, of images and
arrays also examples a second. `waiting`: the share of a run's time in which the host waits for its
next batch, with a compiled step of about 50 ms (a chain on one core, which leaves the other to the
host as an accelerator does), on the arrays in batches of 256 and on the folder in batches of 8: 160
images a second, under half of what the core that is left can decode.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from side_by_side import Entry, compare

sys.path.insert(0, str(Path(__file__).parent))  # so that a config finds `loop_overhead:Counting`

TABLE = {
    "images": Entry("reading:ours_images", "reading:torch_images", None, 1),
    "arrays": Entry("reading:ours_arrays", "reading:torch_arrays", None, 1.5),
    "windows": Entry("data_text:ours_windows", "data_text:torch_windows", None, 1.5),
    "rows": Entry("data_text:ours_rows", "data_text:torch_rows", None, 1.5),
    "tokenising": Entry("data_text:ours_tokenising", "data_text:library_tokenising", None, 1),
}
EXAMPLES = {"images": 2048, "arrays": 59_904}  # of whole batches, a turn
STEPS = 200


def measure_waiting(name: str) -> dict[str, object]:
    """A run through the loop on one of the two, and what it says of its waiting."""
    import loop_overhead
    from workloads import reading

    from zoo.config import Config, DataConfig, LogConfig, ModelConfig, TaskConfig, TrainConfig
    from zoo.data import from_arrays
    from zoo.train.build import build
    from zoo.train.loop import Loop
    from zoo.train.progress import Progress

    loop_overhead.LINKS //= 2  # 50 ms
    if name == "arrays":
        data, batch_size = DataConfig(transform="normalize(0.5, 0.25)"), reading.ARRAY_BATCH
        dataset = from_arrays(reading.mnist_like(), None, classes=True)
    else:
        transform = "decode|random_resized_crop(224, 0.08)|flip|normalize(0.5, 0.25)"
        source = f"folder:{reading.image_folder()}"
        data, dataset, batch_size = DataConfig(source, transform=transform), None, 8
    config = Config(
        model=ModelConfig("mlp", {"widths": (4,)}),
        data=data,
        task=TaskConfig("loop_overhead:Counting"),
        train=TrainConfig(batch_size=batch_size, num_steps=STEPS),
        log=LogConfig(every_steps=STEPS),
    )
    parts = build(config, dataset)
    progress = Progress(STEPS, batch_size, 0.0, show=False)
    loop = Loop(parts, None, progress)
    loop.run(parts.programs.init_state())
    loop.close()
    step, share = 1e3 / progress.speeds()["steps_per_second"], progress.waiting_share()
    loop_overhead.LINKS *= 2
    print(f"waiting, {name}: {share:.2%} of {STEPS} steps of {step:.1f} ms; goal under 2 %")
    return {"name": f"waiting_{name}", "share": share, "step_ms": step}


def main(names: list[str]) -> None:
    """Runs the named entries, or all."""
    rows: list[dict[str, object]] = []
    for name in names or (*TABLE, "waiting"):
        if name == "waiting":
            rows += [measure_waiting("arrays"), measure_waiting("images")]
        elif name in TABLE:
            row = compare(name, TABLE[name])
            if name in EXAMPLES:
                speeds = [EXAMPLES[name] / float(str(row[side])) for side in ("ours", "peer")]
                print(f"  examples a second: ours {speeds[0]:.0f}, PyTorch {speeds[1]:.0f}")
            rows.append(row)
        else:
            raise SystemExit(f"no entry {name!r}; choose from: {', '.join((*TABLE, 'waiting'))}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
