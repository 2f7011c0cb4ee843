"""An explanation as one HTML page that asks for nothing else, and PNGs beside it."""

from __future__ import annotations

import base64
import html
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config import UserError
from zoo.explanation.colors import OVER, TABLES, color_of, enlarge, find_scale, lay_over
from zoo.explanation.result import Axis, Explanation, Lens, Maps, Output, Scores
from zoo.explanation.script import SCRIPT
from zoo.explanation.style import STYLE

MOST_CELLS = 40_000_000  # of one part's maps in the page: beyond it heads are averaged
METHODS = {
    "attention": (
        "Attention",
        "Each map shows how much every query (a place of a layer) takes from every key; the "
        "weights of a query sum to one (Vaswani et al. 2017). Attention tells where a head looks, "
        "not by itself what decides the output.",
    ),
    "rollout": (
        "Attention rollout",
        "Heads averaged, a share of each layer's input kept for its residual stream, the layers "
        "multiplied: from which places of the input each place of the last "
        "layer is mixed (Abnar & Zuidema 2020). It knows nothing of the explained output.",
    ),
    "gradient": (
        "Gradient x attention",
        "Each attention weight times the gradient of the output with respect to it, negative "
        "products dropped, heads averaged, added up through the layers: which places raise this "
        "output (Chefer et al. 2021). The amounts have no unit.",
    ),
    "integrated": (
        "Integrated gradients",
        "Gradients of the output, averaged over the straight way from a baseline to the input, "
        "times that way: what each part adds to the output (red) or takes from it (blue); all "
        "parts together are the difference of the two outputs (Sundararajan et al. 2017).",
    ),
    "lens": (
        "Logit lens",
        "What each layer would answer if it were the last: its hidden state through the model's "
        "own last norm and output matrix (nostalgebraist 2020). The colour is the probability of "
        "the answer; point at a cell for the next ones. The last layer is the model's output.",
    ),
}


def check_path(path: Path) -> None:
    """Raises UserError on a page that cannot be written."""
    if path.suffix != ".html":
        raise UserError(f"--out={str(path)!r} must end in .html")
    if not path.parent.is_dir():
        raise UserError(f"--out={str(path)!r}: there is no folder {path.parent}")
    if path.is_dir():
        raise UserError(f"--out={str(path)!r} is a folder")


def write_page(found: Explanation, path: Path) -> list[Path]:
    """See `Explanation.write`."""
    from zoo.explanation.draw import draw_part

    check_path(path)
    pictures = name_pictures(found, path)
    title = f"{METHODS[found.method][0]}: {show_source(found.source)}"
    files = {
        path: make_page(found, [file.name for file in pictures]).encode(),
        **{file: draw_part(part, title) for file, part in zip(pictures, found.parts, strict=True)},
    }
    written: list[Path] = []
    try:
        for file, content in files.items():
            file.write_bytes(content)
            written.append(file)
    except OSError as error:
        for done in written:
            done.unlink(missing_ok=True)
        raise UserError(f"cannot write {file}: {error.strerror or error}") from None
    return written


def name_pictures(found: Explanation, path: Path) -> list[Path]:
    """The PNGs beside a page, a part each."""
    return [path.parent / f"{path.stem}_{part.name}.png" for part in found.parts]


def tell(found: Explanation, out: str | Path) -> list[str]:
    """What was found and written, in lines for a console."""
    lines = []
    if found.output is not None:
        chance = found.output.probability
        told = "" if chance is None else f" ({show_share(chance)})"
        lines.append(f"{say_output(found.output)}{told}")
    pictures = ", ".join(str(path) for path in name_pictures(found, Path(out)))
    return [*lines, *found.notes, f"page: {out}", f"pictures: {pictures}"]


def make_page(found: Explanation, pictures: list[str]) -> str:
    """The HTML; `pictures` are the names of the PNGs."""
    title, meaning = METHODS[found.method]
    heading = title
    if found.output is not None:
        heading += f": {say_output(found.output)}"
    sections, maps, notes = [], [], list(found.notes)
    for i, part in enumerate(found.parts):
        home = f"part{i}"
        if isinstance(part, Maps):
            packed, told = _pack_maps(part, home)
            maps.append(packed)
            notes += told
            body = f'<div id="{home}">Needs a script; the PNG beside the page shows the same.</div>'
        elif isinstance(part, Scores):
            body = _show_scores(part)
        else:
            body = _show_lens(part)
        sections.append(f"<section><h2>{escape(part.title)}</h2>{body}</section>")
    tables = {name: table.tolist() for name, table in TABLES.items()}
    data = json.dumps({"tables": tables, "maps": maps, "over": OVER}, separators=(",", ":"))
    lines = "".join(f"<p>{escape(note)}</p>" for note in notes)
    files = ", ".join(escape(name) for name in pictures)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}: {escape(show_source(found.source))}</title>
<style>{STYLE}</style></head>
<body><main>
<header><h1>{escape(heading)}</h1>{_show_facts(found)}</header>
<section><h2>How to read it</h2><p style="margin:0">{escape(meaning)}</p>{lines}</section>
{"".join(sections)}
<footer>Pictures beside this page: {files}. Made by zoo explain.</footer>
</main>
<script type="application/json" id="data">{data.replace("<", chr(92) + "u003c")}</script>
<script>{SCRIPT if maps else "document.body.dataset.ready = 'true';"}</script>
</body></html>
"""


def escape(text: str) -> str:
    """Text as HTML holds it."""
    return html.escape(text)


def show_word(word: str) -> str:
    """A token to look at: what cannot be seen has a sign."""
    if not word:
        return "∅"
    if not word.strip(" "):
        return "␣" * len(word)
    return word.replace("\n", "⏎").replace("\t", "⇥")


def say_output(output: Output) -> str:
    """'next token “the”'; a class that is known by its number is 'class 3'."""
    label = show_word(output.label)
    return label if label.startswith(f"{output.what} ") else f"{output.what} “{label}”"


def show_source(source: str) -> str:
    """The end of a path, enough to know it by."""
    return "/".join(Path(source).parts[-2:])


def show_share(share: float) -> str:
    """0.4218 -> '42.2 %'."""
    return f"{share:.1%}".replace("%", " %") if share >= 0.001 else "< 0.1 %"


def _show_facts(found: Explanation) -> str:
    rows = [("source", found.source), ("model", found.model), ("input", found.input)]
    out = found.output
    if out is not None:
        told = "" if out.probability is None else f", probability {show_share(out.probability)}"
        rows.append(("explained", f"{say_output(out)}{told}"))
        rows.append(("score", f"{out.score:.3f}, its logit{_tell_mean(found)}"))
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rows)
    if found.predictions:
        bars = "".join(
            f'<div class="bar"><b>{escape(show_word(label))}</b>'
            f'<span><i style="width:{share:.1%}"></i></span><span>{show_share(share)}</span></div>'
            for label, share in found.predictions
        )
        facts += f'<dt>predicted</dt><dd class="best">{bars}</dd>'
    return f"<dl>{facts}</dl>"


def _tell_mean(found: Explanation) -> str:
    return " less the mean of all logits" if found.predictions else ""


def _show_scores(part: Scores) -> str:
    scale = find_scale(part.values)
    table = TABLES["SIGNED" if part.signed else "POSITIVE"]
    if part.axis.picture is not None:
        body, table = _show_picture(part, scale), table if part.signed else TABLES["HEAT"]
    else:
        body = f'<div class="words">{"".join(_show_chips(part, scale))}</div>'
    stops = ",".join(f"rgb{tuple(table[i].tolist())}" for i in (0, 43, 85, 128, 170, 213, 255))
    low, high = (f"{-scale:.3g}" if part.signed else "0"), f"{scale:.3g}"
    beyond = " and beyond" if np.abs(part.values).max(initial=0.0) > scale * 1.001 else ""
    bar = f'<i style="background:linear-gradient(90deg,{stops})"></i>'
    return f'{body}<p class="legend">{low} {bar} {high}{beyond}</p>'


def _show_chips(part: Scores, scale: float) -> list[str]:
    chips = []
    for word, value in zip(part.axis.words, part.values.tolist(), strict=True):
        back, ink = color_of(value, scale, part.signed)
        chips.append(
            f'<span class="chip" style="background:{back};color:{ink}" title="{value:.4g}">'
            f"{escape(show_word(word))}</span>" + ("<br>" if "\n" in word else "")
        )
    return chips


def fold(axis: Axis, values: np.ndarray) -> np.ndarray:
    """Scores of places as rows and columns of patches; those of pixels as they are."""
    if values.ndim == 2:
        return values
    assert axis.grid is not None
    return values[axis.before :].reshape(axis.grid)


def _show_picture(part: Scores, scale: float) -> str:
    picture = part.axis.picture
    assert picture is not None
    plain = enlarge(picture)
    over = lay_over(plain, fold(part.axis, part.values), scale, part.signed)
    told = "red adds, blue takes away" if part.signed else "what counts"
    figures = [(plain, "as the model sees it"), (over, told)]
    images = "".join(
        f'<figure><img alt="{told}" src="{to_uri(image)}"><figcaption>{told}</figcaption></figure>'
        for image, told in figures
    )
    rest = ""
    if part.values.ndim == 1 and part.axis.before:
        tokens = zip(part.axis.words, part.values[: part.axis.before].tolist(), strict=False)
        rest = "; ".join(f"{word} {value:.3g}" for word, value in tokens)
        rest = f'<p class="soft">Beside the patches: {escape(rest)}.</p>'
    return f'<div class="row">{images}</div>{rest}'


def to_uri(picture: np.ndarray) -> str:
    """A uint8 image as a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _show_lens(part: Lens) -> str:
    head = "".join(f"<th>{escape(show_word(word))}</th>" for word in part.places)
    rows = []
    for i in reversed(range(len(part.layers))):
        cells = []
        for words, chances in zip(part.words[i], part.probabilities[i].tolist(), strict=True):
            back, ink = color_of(chances[0], 1.0, signed=False)
            pairs = zip(words, chances, strict=True)
            told = "\n".join(f"{show_word(word)}  {show_share(share)}" for word, share in pairs)
            cells.append(
                f'<td style="background:{back};color:{ink}" title="{escape(told)}">'
                f"{escape(show_word(words[0]))}</td>"
            )
        rows.append(f"<tr><th>{escape(part.layers[i])}</th>{''.join(cells)}</tr>")
    stops = ",".join(f"rgb{tuple(TABLES['POSITIVE'][i].tolist())}" for i in (0, 64, 128, 192, 255))
    legend = f'0 <i style="background:linear-gradient(90deg,{stops})"></i> 1, a probability'
    return (
        f'<div class="scroll"><table><thead><tr><th>input</th>{head}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table></div><p class="legend">{legend}</p>'
    )


def _pack_maps(part: Maps, home: str) -> tuple[dict[str, Any], list[str]]:
    """The weights in bytes: roots, so that small ones are not lost, deflated."""
    weights, told = part.weights, []
    if weights.size > MOST_CELLS and weights.shape[1] > 1:
        weights = weights.mean(axis=1, keepdims=True)
        told = [f"{part.title}: too many maps for one page, so the heads are averaged."]
    most = float(weights.max(initial=0.0)) or 1.0
    codes = np.sqrt(weights.clip(min=0) / most) * 255
    content = zlib.compress(codes.round().astype(np.uint8).tobytes(), 6)
    packed = {
        "id": home,
        "shape": weights.shape,
        "most": most,
        "start": part.start,
        "codes": base64.b64encode(content).decode(),
        "queries": _pack_axis(part.queries, with_picture=False),
        "keys": _pack_axis(part.keys, with_picture=True),
    }
    return packed, told


def _pack_axis(axis: Axis, with_picture: bool) -> dict[str, Any]:
    shown = with_picture and axis.picture is not None
    return {
        "name": axis.name,
        "words": axis.words,
        "grid": axis.grid,
        "before": axis.before,
        "picture": to_uri(axis.picture) if shown and axis.picture is not None else None,
    }
