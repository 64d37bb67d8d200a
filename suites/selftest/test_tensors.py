import json
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors import deserialize
from safetensors.numpy import load_file

from fixtures.checkpoint.tensors import (
    CHUNK_BYTES,
    DTYPES,
    checkpoint_digest,
    file_digest,
    read_checkpoint,
    read_header,
    read_metadata,
    read_tensor,
)
from fixtures.checkpoint.writing import PendingTensor, write_safetensors
from fixtures.digests import file_and_tensors
from fixtures.errors import InputError
from suites.selftest.tiny import Tiny

TWO = {
    "a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]},
    "b": {"dtype": "I32", "shape": [1], "data_offsets": [4, 8]},
}


def pending(name: str, dtype: str, array: np.ndarray) -> PendingTensor:
    return PendingTensor(name, dtype, array.shape, lambda: array)


def raw_file(path: Path, header: object, data: bytes = bytes(8)) -> Path:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)
    return path


def test_a_checkpoint_is_read_as_the_safetensors_package_wrote_it(tmp_path: Path) -> None:
    tiny = Tiny(shards=3, nested=True, bias=True)
    checkpoint = read_checkpoint(tiny.write(tmp_path / "c"))
    written = tiny.arrays()
    assert checkpoint.tensors.keys() == written.keys()
    assert len(checkpoint.weight_files) == 3
    for name, array in written.items():
        assert np.array_equal(read_tensor(checkpoint.tensors[name]), array), name


def test_a_tensor_read_cannot_be_written_through(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(Tiny().write(tmp_path / "c"))
    view = read_tensor(checkpoint.tensors["model.norm.weight"])
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


named = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    st.sampled_from(sorted(DTYPES)).flatmap(
        lambda dtype: st.tuples(
            st.just(dtype),
            arrays.arrays(np.uint8, st.integers(0, 5).map(lambda n: n * DTYPES[dtype].itemsize)),
        )
    ),
    max_size=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(named)
def test_what_is_written_the_safetensors_package_reads(
    tmp_path: Path, tensors: dict[str, tuple[str, np.ndarray]]
) -> None:
    path = tmp_path / "out.safetensors"
    path.unlink(missing_ok=True)
    given_tensors = [
        pending(name, dtype, data.view(DTYPES[dtype])) for name, (dtype, data) in tensors.items()
    ]
    written = write_safetensors(path, given_tensors, metadata={"format": "pt"})
    found = {name: (entry["dtype"], bytes(entry["data"])) for name, entry in _entries(path)}
    assert found == {name: (dtype, data.tobytes()) for name, (dtype, data) in tensors.items()}
    assert written.digest == file_digest(path)
    assert written.tensors == {name: zlib.crc32(data) for name, (_, data) in found.items()}
    assert read_metadata(path) == {"format": "pt"}
    for info in read_header(path):
        # torch refuses to view a storage that is not aligned to the element size.
        assert info.begin % DTYPES[info.dtype].itemsize == 0


def _entries(path: Path) -> list[tuple[str, dict[str, Any]]]:
    return list(deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]


def test_tensors_are_loaded_one_at_a_time_in_the_writing(tmp_path: Path) -> None:
    alive: list[str] = []

    def load(name: str) -> np.ndarray:
        assert not alive
        alive.append(name)
        array = np.ones(4, np.float16).view(Watched)
        array.owner = alive
        return array

    tensors = [PendingTensor(name, "F16", (4,), partial(load, name)) for name in "abc"]
    write_safetensors(tmp_path / "out.safetensors", tensors, metadata={})
    assert load_file(tmp_path / "out.safetensors").keys() == set("abc")


class Watched(np.ndarray):
    """An array that says when it is gone."""

    owner: list[str]

    def __del__(self) -> None:
        if hasattr(self, "owner"):
            self.owner.clear()


def test_a_tensor_that_is_not_what_was_announced_is_refused(tmp_path: Path) -> None:
    tensor = PendingTensor("a", "F16", (2,), lambda: np.zeros(3, np.float16))
    with pytest.raises(ValueError, match="tensor a loaded as float16"):
        write_safetensors(tmp_path / "out.safetensors", [tensor], metadata={})


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out.safetensors"
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        write_safetensors(path, [], metadata={})
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        (TWO, bytes(7), ["truncated"]),
        (TWO, bytes(9), ["longer than its header says"]),
        ({**TWO, "b": {**TWO["b"], "data_offsets": [2, 6]}}, bytes(8), ["b", "overlaps a"]),
        ({**TWO, "b": {**TWO["b"], "data_offsets": [6, 10]}}, bytes(10), ["unclaimed", "after a"]),
        ({**TWO, "b": {**TWO["b"], "data_offsets": [8, 4]}}, bytes(8), ["b", "spans -4"]),
        ({**TWO, "b": {**TWO["b"], "shape": [3]}}, bytes(8), ["b", "spans 4", "expected 12"]),
        ({**TWO, "b": {**TWO["b"], "shape": [-1]}}, bytes(8), ["b", "[-1]"]),
        ({**TWO, "b": {**TWO["b"], "shape": [True]}}, bytes(8), ["b", "[True]"]),
        ({**TWO, "b": {**TWO["b"], "shape": [0, 2**70]}}, bytes(8), ["b"]),
        ({**TWO, "b": {**TWO["b"], "data_offsets": [4]}}, bytes(8), ["b", "[4]"]),
        ({**TWO, "b": {**TWO["b"], "dtype": "F4"}}, bytes(8), ["b", "'F4'", "BF16"]),
        ({**TWO, "b": {**TWO["b"], "dtype": ["I32"]}}, bytes(8), ["b", "['I32']"]),
        ({**TWO, "b": 3}, bytes(8), ["b", "None"]),
        ([1], b"", ["no JSON object"]),
        (b"{", b"", ["no readable safetensors header"]),
        (b"\xff\xff", b"", ["no readable safetensors header"]),
        (b"[" * 200_000, b"", ["no readable safetensors header"]),
        (b'{"a":{},"a":{}}', b"", ["twice"]),
    ],
)
def test_a_hostile_header_is_one_line_naming_the_file(
    tmp_path: Path, header: object, data: bytes, words: list[str]
) -> None:
    path = raw_file(tmp_path / "model.safetensors", header, data)
    with pytest.raises(InputError) as refusal:
        read_header(path)
    message = str(refusal.value)
    assert all(word in message for word in [str(path), *words]), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes in a file of 0"),
        (b"abc", "in a file of 3"),
        (struct.pack("<Q", 2**63), "9223372036854775808 bytes in a file of 8"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer of 43 bytes"),
    ],
)
def test_a_file_that_is_no_safetensors_says_so(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_header(path)


def truncate(directory: Path) -> None:
    path = sorted(directory.glob("*.safetensors"))[-1]
    path.write_bytes(path.read_bytes()[:-10])


def unlist(directory: Path, **changes: str | None) -> None:
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    for name, file in changes.items():
        index["weight_map"] |= {name: file}
        if file is None:
            del index["weight_map"][name]
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: (d / "config.json").unlink(), "config.json does not exist"),
        (lambda d: (d / "config.json").write_text("{"), "config.json is not valid JSON"),
        (lambda d: (d / "config.json").write_text("[]"), "config.json holds list"),
        (truncate, "model-00003-of-00003.safetensors is truncated: .* bytes, expected"),
        (lambda d: next(d.glob("*2-of*")).unlink(), "names model-00002.*does not exist"),
        (lambda d: unlist(d, **{"lm_head.weight": None}), "lm_head.weight, which .* does not name"),
        (lambda d: unlist(d, ghost="model-00001-of-00003.safetensors"), "places tensor ghost"),
        (lambda d: unlist(d, ghost="../away.safetensors"), "names the file '../away"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, damage: Any, words: str) -> None:
    directory = Tiny(shards=3).write(tmp_path / "c")
    damage(directory)
    with pytest.raises(InputError, match=words):
        read_checkpoint(directory)


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a directory"):
        read_checkpoint(tmp_path / "nowhere")
    directory = Tiny().write(tmp_path / "c")
    (directory / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no tensors"):
        read_checkpoint(directory)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    directory = Tiny().write(tmp_path / "c")
    (directory / "extra.safetensors").write_bytes((directory / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"so does extra\.safetensors"):
        read_checkpoint(directory)


def test_the_digest_covers_names_and_contents_but_not_the_manifest(tmp_path: Path) -> None:
    directory = Tiny().write(tmp_path / "c")
    before = checkpoint_digest(directory)
    for name in ("variant.json", ".hidden"):
        (directory / name).write_text("x")
    assert checkpoint_digest(directory) == before
    (directory / "tokenizer.json").rename(directory / "tokeniser.json")
    assert checkpoint_digest(directory) != before
    (directory / "tokeniser.json").rename(directory / "tokenizer.json")
    (directory / "tokenizer.json").write_text("[]")
    assert checkpoint_digest(directory) != before


def test_a_file_and_its_tensors_are_digested_in_one_pass(tmp_path: Path) -> None:
    source = Tiny(shards=3).write(tmp_path / "source")
    for path in sorted(source.iterdir()):
        infos = {i.name: i for i in read_checkpoint(source).tensors.values() if i.file == path}
        read: list[int] = []
        digest, codes = file_and_tensors(path, infos, read.append)
        assert (digest, sum(read)) == (file_digest(path), path.stat().st_size)
        content = path.read_bytes()
        assert codes == {n: zlib.crc32(content[i.begin : i.end]) for n, i in infos.items()}
        assert max(read, default=0) <= CHUNK_BYTES
