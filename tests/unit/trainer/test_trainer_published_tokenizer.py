"""A published tokenizer says what Hugging Face's library says of the same file; a file that cannot be used is named."""

from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from stoker.spec.data import FileTokenizer
from worker.trainer.data.tokenizer import learn_codec, load_codec
from worker.trainer.errors import SpecProblem

TEXT = "In the beginning God created the heaven and the earth. Été \U0001f30d, and it was good.\n" * 20


def word_pieces() -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    inner.train_from_iterator([TEXT], trainer)
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    inner.enable_padding(length=64)  # as published files have it
    inner.enable_truncation(5)
    return inner


def byte_pairs() -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    return inner


def placed(home: Path, inner: tokenizers.Tokenizer) -> Path:
    folder = home / "data" / "bert@1"
    folder.mkdir(parents=True)
    inner.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.mark.parametrize("special", [True, False])
def test_texts_become_the_ids_that_the_library_gives(tmp_path: Path, special: bool) -> None:
    reference = tokenizers.Tokenizer.from_file(str(placed(tmp_path, word_pieces())))
    reference.no_padding()
    reference.no_truncation()
    texts = ["In the beginning", "", "good earth, good heaven " * 9]
    codec = learn_codec(FileTokenizer(source="bert@1", special_tokens=special), "", "", tmp_path)
    for one in (codec, load_codec(codec.dump())):
        assert [ids.tolist() for ids in one.encode_each(texts)] == [
            reference.encode(text, add_special_tokens=special).ids for text in texts
        ]
        assert one.rows == reference.get_vocab_size()
    assert codec.encode("good earth").tolist() == reference.encode("good earth", add_special_tokens=False).ids


def test_a_stream_of_byte_pairs_is_given_back_and_counted_in_bytes(tmp_path: Path) -> None:
    placed(tmp_path, byte_pairs())
    codec = learn_codec(FileTokenizer(source="bert@1", vocab_size=512), TEXT, TEXT, tmp_path)
    ids = codec.encode(TEXT)
    assert codec.decode(ids.tolist()) == TEXT
    assert codec.byte_lengths()[ids].sum() == len(TEXT.encode())
    assert codec.rows == len(codec.byte_lengths()) == 512


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    spec = FileTokenizer(source="bert@1", vocab_size=7)
    with pytest.raises(SpecProblem, match=r"data.tokenizer.source: bert@1 has no tokenizer.json"):
        learn_codec(spec, "", "", tmp_path)
    file = placed(tmp_path, word_pieces())
    with pytest.raises(SpecProblem, match=r"data.tokenizer.vocab_size: 7, and the tokenizer.json of bert@1 has \d+ tokens"):
        learn_codec(spec, "", "", tmp_path)
    file.write_text("{}")
    with pytest.raises(SpecProblem, match=r"data.tokenizer.source: the tokenizer.json of bert@1 cannot be read"):
        learn_codec(spec, "", "", tmp_path)
