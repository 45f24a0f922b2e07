"""Prompt embeddings on disk: each is computed once, an interrupt loses one at most, and a broken file is replaced."""

import pytest
import torch

from models.text_cache import through


class Encoder:
    """Encodes a prompt as its length; is interrupted before the prompt `stop`."""

    def __init__(self, stop=None):
        self.asked, self.stop = [], stop

    def __call__(self, prompts):
        for prompt in prompts:
            if prompt == self.stop:
                raise KeyboardInterrupt
            self.asked.append(prompt)
            yield torch.tensor([len(prompt)])


def test_an_embedding_is_computed_once_and_again_for_another_encoder(tmp_path):
    first, second, other = Encoder(), Encoder(), Encoder()
    assert through(tmp_path, ["bb", "a", "bb"], "one", first) == {"a": 1, "bb": 2} and first.asked == ["a", "bb"]
    assert through(tmp_path, ["a", "ccc"], "one", second) == {"a": 1, "ccc": 3} and second.asked == ["ccc"]
    assert through(tmp_path, ["a"], "two", other) == {"a": 1} and other.asked == ["a"]


def test_after_an_interrupt_only_the_rest_is_computed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        through(tmp_path, ["a", "bb", "ccc"], "one", Encoder(stop="ccc"))
    again = Encoder()
    assert through(tmp_path, ["a", "bb", "ccc"], "one", again) == {"a": 1, "bb": 2, "ccc": 3}
    assert again.asked == ["ccc"] and not [*tmp_path.glob("*.part")]


def test_a_broken_file_is_written_again(tmp_path):
    through(tmp_path, ["a"], "one", Encoder())
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    again = Encoder()
    assert through(tmp_path, ["a"], "one", again) == {"a": 1} and again.asked == ["a"]
    assert through(tmp_path, ["a"], "one", Encoder(stop="a")) == {"a": 1}


def test_without_a_folder_every_embedding_is_computed():
    encoder = Encoder()
    assert through(None, ["a"], "one", encoder) == {"a": 1} and encoder.asked == ["a"]
