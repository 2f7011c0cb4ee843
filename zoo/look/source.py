"""What the words SOURCE and `--data.KEY=VALUE` of `zoo data ...` mean."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from zoo.config import Config, DataConfig, UserError, load_recipe, set_values
from zoo.config.checks import check_config

# 'configs/x.py:quick' is a recipe, 'text:src/*.py' is none.
RECIPE = re.compile(r"[^:]+\.py(:.*)?")


def make_source_config(spec: str, values: Mapping[str, str], like: Config | None = None) -> Config:
    """The config of a recipe FILE[:OPTIONS], or the default one with `spec` as its `data.source`
    ('' where `values` have a mixture).

    `values` are set last ('data.length' -> '64'). With `like`, what is no recipe takes its other
    keys from there. Raises UserError as `zoo.config` does.
    """
    if RECIPE.fullmatch(spec):
        config = load_recipe(spec)
    elif "data.source" in values:
        raise UserError(f"--data.source={values['data.source']!r} and {spec!r}: name one source")
    else:
        base = like or Config()
        source = spec or DataConfig().source
        data = dataclasses.replace(base.data, source=source, mixture={})
        config = dataclasses.replace(base, data=data)
    config = check_config(set_values(config, values))
    if not spec and not config.data.mixture:
        raise UserError("data.mixture is empty: name a SOURCE, or what to mix")
    return config


def is_recipe(spec: str) -> bool:
    """Is it FILE.py[:OPTIONS]?"""
    return RECIPE.fullmatch(spec) is not None


def file_name(spec: str) -> str:
    """A name for files about a source: 'embedded:digits' -> 'embedded-digits', a recipe's stem."""
    if is_recipe(spec):
        spec = spec.partition(".py")[0].rpartition("/")[2]
    return re.sub(r"[^\w.]+", "-", spec).strip("-.")[-80:] or "data"
