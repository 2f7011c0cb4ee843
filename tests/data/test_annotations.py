"""Tagged words, answers in contexts, choices: against the tokenizers called one text at a time."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.config import DataConfig, UserError
from zoo.data import ArraySource, Dataset, TrainStream, open_dataset
from zoo.data.annotated import number_words
from zoo.data.seen import describe_fields, recall_dataset
from zoo.data.text import encode_text
from zoo.data.tokenizers import ByteTokenizer
from zoo.data.tokenizers.training import train_bpe, train_unigram, train_wordpiece

TEXTS = ["Ann Lee sold the bíg red barn in New York, didn't she?", "it is 3.5 metres high (or so)"]
PIECES = train_wordpiece(TEXTS * 3, 70)
TOKENIZERS = [PIECES, train_bpe(TEXTS, 290), train_unigram(TEXTS * 9, 60), ByteTokenizer()]
WORDS = [["Ann", "Lee", "sold", "New York", "(bíg)"], ["it"], ["", "didn't", "3.5", "日本"], []]
TAGS = [["PER", "PER", "O", "LOC", "O"], ["O"], ["O", "O", "NUM", "LOC"], []]
CONTEXT = "Ann Lee sold the bíg red barn in New York in 1931, and she was 93 and it was hers."
QUESTIONS = [
    {"question": "who?", "context": CONTEXT, "answers": {"text": ["Ann Lee"], "answer_start": [0]}},
    {"question": "when?", "context": CONTEXT, "answers": {"text": ["1931"], "answer_start": [45]}},
    {"question": "why?", "context": CONTEXT, "answers": {"text": [], "answer_start": []}},
]
CHOICES = [
    {"question": "2 + 2?", "choices": ["4", "five red barns"], "label": 0},
    {"question": "the bíg barn is", "choices": ["hers", "Ann"], "label": 1},
    {"question": "", "choices": ["", "in New York, in the bíg red barn of Ann Lee"], "label": 1},
]


def write(folder, rows, name="train"):
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"jsonl:{path}"


def tagged():
    return [{"words": w, "tags": t} for w, t in zip(WORDS, TAGS, strict=True)]


def lists(values):
    return np.fromiter(values, object, len(values))


def encode(folder, fields, own, num_classes=None, **changes):
    arrays = {name: lists(v) if name != "label" else np.array(v) for name, v in fields.items()}
    dataset = Dataset("mine", {"train": ArraySource(arrays)}, num_classes, fingerprint="raw")
    return encode_text(dataset, DataConfig(cache=str(folder), **{"length": 40, **changes}), own)


def take(dataset, split="train"):
    source = dataset.splits[split]
    return source.take(np.arange(len(source)))


def to_fields(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_tag_counts_at_its_words_first_token(tmp_path, tokenizer):
    names = ["O", "PER", "LOC", "NUM"]
    numbers = [[names.index(tag) for tag in row] for row in TAGS]
    rows = take(encode(tmp_path, {"words": WORDS, "tags": numbers}, tokenizer, 4))
    for i, (words, tags) in enumerate(zip(WORDS, numbers, strict=True)):
        text = " ".join(words)
        row = tokenizer.encode_placed([text])[0]
        assert rows["tokens"][i][rows["token_mask"][i]].tolist() == row.ids.tolist()
        assert rows["token_mask"][i].sum() == len(row)
        # By brute force: of each word the first token that has one of its characters.
        wanted, begin = [-1] * 40, 0
        for word, tag in zip(words, tags, strict=True):
            hits = [
                place
                for place, (a, b) in enumerate(row.places)
                if row.owners[place] == 0 and a < begin + len(word) and b > begin and word
            ]
            if hits:
                wanted[hits[0]] = tag
            begin += len(word) + 1
        assert rows["token_label"][i].tolist() == wanted
        assert sum(tag >= 0 for tag in wanted) == sum(word != "" for word in words)


def test_words_as_the_library_takes_them():
    """Its own way to tell which token is of which word: words given one by one."""
    import tokenizers

    words = WORDS[0] + WORDS[2][1:]
    library = tokenizers.Tokenizer.from_str(PIECES.text)
    theirs = library.encode(words, is_pretokenized=True)
    ours = PIECES.encode_placed([" ".join(words)])[0]
    assert ours.ids.tolist() == theirs.ids
    first = [
        0 if word is None or word in theirs.word_ids[:place] else word + 1
        for place, word in enumerate(theirs.word_ids)
    ]
    assert number_words(words, ours).tolist() == first


def test_what_is_cut_off_is_told(tmp_path):
    source = write(tmp_path, tagged())
    dataset = open_dataset(DataConfig(source, length=12, cache=str(tmp_path / "cache")))
    assert dataset.class_names == ("LOC", "NUM", "O", "PER")
    assert dataset.notes == (
        "columns: words: words; tags: tags",
        "tags: 4 classes (LOC, NUM, O, PER)",
        "split 'train': 4 of 10 words have no token in data.length=12: their tags do not count",
    )
    rows = take(dataset)
    assert rows["token_label"][0].tolist() == [3, -1, -1, -1, 3, -1, -1, -1, 2, -1, -1, -1]
    assert rows["token_mask"].sum(1).tolist() == [12, 2, 12, 0]
    prints = {  # other tags of the same words are other data
        encode(tmp_path, {"words": WORDS[:1], "tags": [tags]}, PIECES, 4).fingerprint
        for tags in ([0, 1, 2, 3, 0], [0, 1, 2, 3, 1])
    }
    assert len(prints) == 2


def test_tokenizers_cut_as_their_template_says(tmp_path):
    rows = take(encode(tmp_path, {"words": WORDS[:1], "tags": [[0] * 5]}, PIECES, 1, length=6))
    assert rows["token_mask"].all()
    assert rows["tokens"][0, [0, -1]].tolist() == [PIECES.find("[CLS]"), PIECES.find("[SEP]")]
    assert rows["token_label"][0, -1] == -1


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_answers_stand_in_their_windows(tmp_path, tokenizer):
    whole = encode(tmp_path, to_fields(QUESTIONS), tokenizer, length=120)
    rows, source = take(whole), whole.splits["train"]
    assert len(source) == 3
    assert whole.notes == ()
    places = source.places(np.arange(3))
    for i, answer in enumerate(["Ann Lee", "1931"]):
        first, last = rows["start"][i], rows["end"][i]
        assert CONTEXT[places[i, first, 0] : places[i, last, 1]].strip() == answer
        assert first > 0
        pair = QUESTIONS[i]["question"], CONTEXT
        assert rows["tokens"][i][rows["token_mask"][i]].tolist() == (
            tokenizer.encode_rows([pair], 120)[0][0].tolist()
        )
    assert (rows["start"][2], rows["end"][2]) == (0, 0)
    if tokenizer is PIECES:
        made = PIECES.batch([("who?", CONTEXT)], 120)
        np.testing.assert_array_equal(rows["types"][0][: made["types"].shape[1]], made["types"][0])


@settings(max_examples=25)
@given(data=st.data())
def test_no_answer_is_lost(tmp_path_factory, data):
    words = data.draw(st.lists(st.sampled_from(TEXTS[0].split()), min_size=1, max_size=30))
    context, tokenizer = " ".join(words), data.draw(st.sampled_from([PIECES, ByteTokenizer()]))
    start = data.draw(st.integers(0, len(context) - 1))
    text = context[start : start + data.draw(st.integers(1, 8))]
    answers = {"text": [text], "answer_start": [start]}
    length, stride = data.draw(st.sampled_from([(32, None), (32, 3), (60, 11)]))
    fields = {"question": ["who?"], "context": [context], "answers": [answers]}
    folder = tmp_path_factory.mktemp("cache")
    dataset = encode(folder, fields, tokenizer, length=length, stride=stride)
    rows, source = take(dataset), dataset.splits["train"]
    places = source.places(np.arange(len(source)))
    seen, found = set(), 0
    for i in range(len(source)):
        seen |= {c for a, b in places[i] for c in range(a, b)}
        first, last = rows["start"][i], rows["end"][i]
        assert 0 <= first <= last < rows["token_mask"][i].sum()
        inside = [(a, b) for a, b in places[i] if b > 0]
        holds = inside[0][0] <= start + len(text) - len(text.lstrip()) and inside[-1][1] >= (
            start + len(text.rstrip())
        )
        assert (last > 0) == (holds and text.strip() != "")
        if last:
            found += 1
            shown = context[places[i, first, 0] : places[i, last, 1]]
            assert text.strip() in shown
            tokens = places[i, first + 1 : last]  # none more than it takes
            assert all(a < start + len(text) and b > start for a, b in tokens)
    assert found or not text.strip()
    assert seen >= {i for i, c in enumerate(context) if c != " "}


def test_windows_and_lost_answers_are_told(tmp_path):
    long = {"text": [CONTEXT[:60]], "answer_start": [0]}
    rows = [*QUESTIONS, {"question": "all?", "context": CONTEXT, "answers": long}]
    source = write(tmp_path, rows)
    config = DataConfig(source, length=40, cache=str(tmp_path / "cache"), stride=10)
    dataset = open_dataset(config)
    owners = dataset.splits["train"].owners
    assert dataset.notes[-1] == (
        f"split 'train': 4 contexts in {len(owners)} windows; 1 answers are in no window whole and "
        "count as none"
    )
    assert sorted(set(owners.tolist())) == [0, 1, 2, 3]
    assert take(dataset)["tokens"].shape == (len(owners), 40)


def test_answers_in_columns_of_their_own(tmp_path):
    (tmp_path / "train.csv").write_text(
        "id,question,context,answer,answer_start\n1,who?,it was Ann,Ann,7\n2,why?,it was Ann,,\n"
    )
    rows = take(open_dataset(DataConfig(f"csv:{tmp_path}", length=20, cache=str(tmp_path / "c"))))
    assert rows["start"].tolist() == [12, 0]
    assert rows["end"].tolist() == [14, 0]


def test_choices_are_pairs(tmp_path):
    dataset = encode(tmp_path, to_fields(CHOICES), PIECES, length=20)
    rows = take(dataset)
    assert rows["tokens"].shape == rows["token_mask"].shape == rows["types"].shape == (3, 2, 20)
    assert rows["label"].tolist() == [0, 1, 1]
    for i, row in enumerate(CHOICES):
        made = PIECES.batch([(row["question"], choice) for choice in row["choices"]], 20)
        length = made["tokens"].shape[1]
        np.testing.assert_array_equal(rows["tokens"][i, :, :length], made["tokens"])
        np.testing.assert_array_equal(rows["types"][i, :, :length], made["types"])
        np.testing.assert_array_equal(rows["token_mask"][i].sum(1), made["mask"].sum(1))
    assert dataset.num_classes is None


@pytest.mark.parametrize("rows", [tagged(), QUESTIONS, CHOICES])
def test_every_format_and_what_a_run_remembers(tmp_path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    sources = [write(tmp_path, rows), f"parquet:{tmp_path / 'train.parquet'}"]
    config = {"length": 40, "cache": str(tmp_path / "cache"), "buckets": (20, 40)}
    made = [open_dataset(DataConfig(source, **config)) for source in sources]
    first, second = map(take, made)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
    known = {"name": "x", "num_classes": made[0].num_classes, **describe_fields(made[0])}
    again = recall_dataset(json.loads(json.dumps(known)), made[0].tokenizer)
    assert again.shapes == made[0].shapes
    stream = TrainStream(made[0].splits["train"], (), 2, 4)
    assert {stream.read(step, 1)["tokens"].shape[-1] for step in range(4)} <= {20, 40}


def test_a_hugging_face_dataset(tmp_path):
    datasets = pytest.importorskip("datasets", reason="pip install 'zoo-jax[hf]'")
    names = datasets.ClassLabel(names=["O", "PER", "LOC", "NUM"])
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "pos_tags": datasets.Sequence(datasets.Value("int64")),
            "ner_tags": datasets.Sequence(names),
        }
    )
    rows = {
        "tokens": WORDS,
        "pos_tags": [[0] * len(words) for words in WORDS],
        "ner_tags": [[names.str2int(tag) for tag in tags] for tags in TAGS],
    }
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    dataset = open_dataset(DataConfig(f"hf:{tmp_path}/saved", cache=str(tmp_path / "cache")))
    assert dataset.class_names == ("O", "PER", "LOC", "NUM")
    assert dataset.columns == {"words": ("tokens",), "tags": ("ner_tags",)}
    assert take(dataset)["token_label"].max() == 3


def change(rows, index, **fields):
    return [{**row, **fields} if i == index else row for i, row in enumerate(rows)]


MISTAKES = [
    (change(tagged(), 1, tags=["O", "O"]), ":2: 1 words and 2 tags"),
    (change(tagged(), 2, tags="O"), ":3: column 'tags' is 'O' (str), not a list of tags"),
    (change(tagged(), 1, words=[3]), ":2: column 'words' holds 3 (int), not only texts"),
    (change(tagged(), 1, words=None), ":2: column 'words' is missing, not a list of texts"),
    (change(tagged(), 1, tags=[{}]), "not a label"),
    ([{"words": ["a"]}], "'words' needs 'tags' beside it: set data.columns, e.g. {'tags': "),
    (
        change(QUESTIONS, 1, answers={"text": ["1931"], "answer_start": [44]}),
        ":2: the answer '1931' is not at 44 of the context, there is ' 193' (it stands at 45)",
    ),
    (
        change(QUESTIONS, 1, answers={"text": ["2031"], "answer_start": [-3]}),
        ":2: the answer '2031' is not at -3 of the context, there is '', and it stands nowhere",
    ),
    (change(QUESTIONS, 2, answers="no"), ":3: column 'answers' is 'no' (str), not {'text': [...]"),
    (
        [{"question": "a", "context": "b c", "answer": "b", "answer_start": "one"}],
        ":1: column 'answer_start' is 'one' (str), not the place of its first character",
    ),
    (change(CHOICES, 2, choices=["a"]), ":3 has 1 choices, others 2"),
    (change(CHOICES, 1, label=2), ":2: label 2 is no choice (0 to 1)"),
    (change(CHOICES, 1, label="b"), ":2: column 'label' is 'b' (str), not the number of a choice"),
]


@pytest.mark.parametrize(("rows", "line"), MISTAKES)
def test_mistakes_are_one_line(tmp_path, rows, line):
    with pytest.raises(UserError) as error:
        open_dataset(DataConfig(write(tmp_path, rows), cache=str(tmp_path / "cache")))
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_class_that_training_never_saw(tmp_path):
    write(tmp_path, tagged())
    write(tmp_path, change(tagged(), 1, tags=["PERS"]), "val")
    with pytest.raises(UserError, match=r"val\.jsonl:2: label 'PERS' was never seen"):
        open_dataset(DataConfig(f"jsonl:{tmp_path}", cache=str(tmp_path / "cache")))


def test_a_tag_that_is_no_class(tmp_path):
    with pytest.raises(UserError, match=r"^example 0: tag 5 is no class \(0 to 3\)$"):
        encode(tmp_path, {"words": WORDS[:1], "tags": [[0, 1, 2, 5, 0]]}, PIECES, 4)


def test_windows_with_gaps_between_them_are_refused(tmp_path):
    source = write(tmp_path, QUESTIONS)
    config = DataConfig(source, length=40, cache=str(tmp_path / "cache"), stride=40)
    with pytest.raises(UserError, match=r"data.stride=40: windows of data.length=40 .* leave out"):
        open_dataset(config)


def test_a_split_whose_answers_are_all_lost_is_refused(tmp_path):
    long = {"text": [CONTEXT[:60]], "answer_start": [0]}
    source = write(tmp_path, [{"question": "all?", "context": CONTEXT, "answers": long}] * 2)
    config = DataConfig(source, length=40, cache=str(tmp_path / "cache"), stride=10)
    with pytest.raises(UserError, match=r"'train': no window of data.length=40 .* its 2 answers"):
        open_dataset(config)
