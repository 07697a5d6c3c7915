"""Compares what a torch file claims to hold with what it has, before torch believes it.

Torch compares neither checksums nor sizes: it would allocate what a storage says to have, and read beyond the end of one.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from distillctl.errors import DataError

_UNPACKED = 16 << 20
_RATIO = 8
"""A packed archive may unpack to this number of bytes, and to this multiple of its size; `torch.save` packs nothing."""
_PICKLES = 5
"""Of a file in the old form: a magic number, a version, the system, the content, the keys of the storages."""
_BYTES = {"Double": 8, "Long": 8, "ComplexFloat": 8, "ComplexDouble": 16, "Float": 4, "Int": 4, "Half": 2, "BFloat16": 2, "Short": 2}
"""Of one number of a storage class; of those that are not here at least one."""
_DEEP = 100
_WITHIN = 1_000_000
"""A tuple may nest others this deep, and hold this number of objects in all."""
_TOO_MUCH = "asks for far more memory than a file of its size needs"
_TUPLES = {code[0] for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)}


class _Inert:
    """Stands for whatever a file names: takes what it is given, and keeps nothing."""

    name: ClassVar[str] = ""
    claimed: ClassVar[dict[str, int]] = {}

    def __new__(cls, *arguments: object) -> _Inert:
        if cls.name == "bytearray" or cls.name.endswith(("Tensor", "Storage")):  # they would be made as large as the number says
            for size in arguments:
                if isinstance(size, int):
                    cls.claimed[f"{cls.name}()"] = size
        return object.__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __call__(self, *_: object) -> _Inert:
        return self

    def __getattr__(self, name: str) -> Any:
        if name in ("append", "extend", "add", "update", "__setstate__"):
            return lambda *_: None
        raise AttributeError(name)

    def __setitem__(self, key: object, value: object) -> None: ...


class _Tuple(tuple[Any, ...]):
    """One that knows how deep it is and how much is in it, counted each time it is in it."""

    deep = 0
    within = 0


def _measured(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """Makes a tuple as `load` does, unless it would crash or never end as a key of a mapping: its hash goes through all that is in it."""

    def measure(reader: Any) -> None:
        load(reader)
        made = _Tuple(reader.stack[-1])
        inside = [part for part in made if isinstance(part, _Tuple)]
        made.deep = 1 + max((part.deep for part in inside), default=0)
        made.within = len(made) + sum(part.within for part in inside)
        if made.deep > _DEEP or made.within > _WITHIN:
            raise _harmful(reader.path, "nests tuples in one another as no file of weights does")
        reader.stack[-1] = made

    return measure


class _Claims(pickle._Unpickler):  # the one in Python: the one in C keeps a table as large as a file says
    """Goes through a pickle, builds nothing, and notes what its storages claim."""

    def __init__(self, path: Path, file: Any, claimed: dict[str, int]) -> None:
        super().__init__(file, encoding="bytes")
        self.path, self._claimed = path, claimed

    dispatch: ClassVar[dict[int, Any]] = {
        code: _measured(load) if code in _TUPLES else load for code, load in pickle._Unpickler.dispatch.items()
    }

    def find_class(self, module: str, name: str) -> type[_Inert]:
        return type(name, (_Inert,), {"name": name, "claimed": self._claimed})

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError("an extension")

    def persistent_load(self, claim: Any) -> _Inert:
        if isinstance(claim, tuple) and len(claim) >= 5 and claim[0] in ("storage", b"storage"):
            _, kind, key, _, count = claim[:5]
            if isinstance(count, int):
                text = key.decode(errors="replace") if isinstance(key, bytes) else str(key)
                size = count * _BYTES.get(str(getattr(kind, "name", "")).removesuffix("Storage"), 1)
                self._claimed[text] = max(self._claimed.get(text, 0), size)
        return _Inert()


class Checked(NamedTuple):
    """What is known of a file whose claims are true.

    mapped: whether it can be mapped into memory.
    whole: whether all of it was gone through. Otherwise torch says why it refuses it, or it is refused after torch took it.
    """

    mapped: bool
    whole: bool


def check_claims(path: Path) -> Checked:
    """Compares sizes, names and checksums.

    Raises:
        DataError: it claims more than it has, is damaged, or is not a file of weights.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            return Checked(False, _check_old_form(path, file))
    with zipfile.ZipFile(path) as archive:
        return _check_archive(path, archive)


def _harmful(path: Path, what: str) -> DataError:
    return DataError(f"`{path}` {what}", hint="it is damaged or was made to do harm: get it anew from where it came from")


def _check_archive(path: Path, archive: zipfile.ZipFile) -> Checked:
    """Names, sizes and checksums of a zip archive, and what its pickle says of them."""
    entries = archive.infolist()
    parts = {entry.filename.partition("/")[2]: entry for entry in entries}
    if "constants.pkl" in parts:
        raise DataError(f"`{path}` is a TorchScript program, not a file of weights", hint="save the `state_dict()` of the model instead")
    if "data.pkl" not in parts:
        raise DataError(
            f"`{path}` is damaged or an archive of other files, not one that `torch.save` wrote",
            hint="if it holds checkpoints, unpack it and name one of them",
        )
    if len({entry.filename for entry in entries}) < len(entries):
        raise DataError(f"`{path}` is damaged: two parts of it have the same name")
    if sum(entry.file_size for entry in entries) > _UNPACKED + _RATIO * path.stat().st_size:
        raise _harmful(path, _TOO_MUCH)
    if any(entry.CRC for entry in entries):
        for entry in entries:
            with archive.open(entry) as part:
                while part.read(1 << 20):  # compares at the end
                    pass
    else:  # torch writes none if it is told so, and `zipfile` compares what is there
        del parts["data.pkl"].CRC
    claimed: dict[str, int] = {}
    whole = _read(path, io.BytesIO(archive.read(parts["data.pkl"])), claimed, 1)
    has = {name.removeprefix("data/"): entry.file_size for name, entry in parts.items()}
    for key, count in claimed.items():
        if count > has.get(key, 0):
            raise DataError(
                f"`{path}` is damaged: a tensor in it claims {count} bytes, where {has.get(key, 0)} are",
                hint="get the file anew from where it came from",
            )
    return Checked(all(entry.compress_type == zipfile.ZIP_STORED for entry in entries), whole)


def _check_old_form(path: Path, file: Any) -> bool:
    """The storages follow the pickles, one after the other: all of them together are no larger than the file."""
    claimed: dict[str, int] = {}
    whole = _read(path, file, claimed, _PICKLES)
    if sum(claimed.values()) > path.stat().st_size:
        raise _harmful(path, _TOO_MUCH)
    return whole


def _read(path: Path, file: Any, claimed: dict[str, int], pickles: int) -> bool:
    """Goes through N pickles; whether it came to the end of them."""
    try:
        for _ in range(pickles):
            _Claims(path, file, claimed).load()
    except DataError:
        raise
    except Exception:  # noqa: BLE001 - a damaged pickle makes the reader raise nearly anything
        return False
    return True
