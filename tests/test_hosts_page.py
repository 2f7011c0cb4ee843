"""The commands of docs/hosts.md and docs/scale.md: our own parsers take every flag of them."""

import pathlib
import re
import shlex

import pytest

from zoo.cli import VERBS
from zoo.config import UserError, make_config, parse_command
from zoo.config.checks import check_config

PAGES = {name: pathlib.Path(f"docs/{name}.md").read_text() for name in ("hosts", "scale")}
ALLOWED = {
    "train.py": ["workdir", "plan"],
    "rehearse": ["processes", "devices-per-process", "kill", "workdir"],
    "plan": ["plan"],
}


def find_commands(page):
    """Every command of a page, from `train.py` or `zoo VERB` on, broken lines joined."""
    blocks = re.findall(r"(?:^ {4}[^\n]*\n)+|^```[\s\S]*?^```", page, re.MULTILINE)
    text = "\n".join(blocks).replace("\\\n", " ")
    text = re.sub(r"\n\s+(?=--config\.)", " ", text)  # folded YAML
    found = re.findall(r"(?:train\.py|\bzoo (?:rehearse|plan)) .*", text)
    # What a comment or a shell's quotes around all leave behind.
    return [shlex.split(line.split("#")[0].removesuffix('"')) for line in found]


COMMANDS = [words for page in PAGES.values() for words in find_commands(page)]


def parse(words):
    """The config that a command resolves to."""
    program = words.pop(0)
    if program == "zoo":
        program = words.pop(0)
        assert program in VERBS
    words = ["--kill=true" if word == "--kill" else word for word in words]
    for flag in ("--config", "--plan"):  # `zoo plan FILE TARGET`
        if program == "plan" and not words[0].startswith("--"):
            words.append(f"{flag}={words.pop(0)}")
    flags = parse_command(words, ALLOWED[program])
    spec = flags["config"].replace("FILE", "configs/vit_digits.py")
    values = {k.removeprefix("config."): v for k, v in flags.items() if k.startswith("config.")}
    return check_config(make_config(spec, values))


def test_the_pages_have_them():
    assert len(COMMANDS) >= 11


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command(words):
    parse(list(words))


def test_a_wrong_flag_would_be_found():
    with pytest.raises(UserError, match="fsdp"):
        parse(shlex.split("train.py --config configs/vit_digits.py --config.parallel.fdsp=8"))


def test_the_yaml():
    yaml = pytest.importorskip("yaml")
    (page,) = re.findall(r"```yaml\n(.*?)```", PAGES["hosts"], re.DOTALL)
    spec = yaml.safe_load(page)["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert spec["parallelism"] == spec["completions"] == 4
    (command,) = spec["template"]["spec"]["containers"][0]["args"]
    parse(shlex.split(command)[2:])
