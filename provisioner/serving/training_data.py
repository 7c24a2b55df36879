"""Which files the model is tuned with, and how their columns become what trl's trainer takes. Pure but for looking.

messages            a conversation, as OpenAI's fine-tuning has it
context, response   a prompt and its completion
response alone      plain text
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from provisioner.serving.problem import Problem
from provisioner.serving.training_config import DatasetConfig

# Ends of names, and what `datasets` calls their loader.
_LOADERS: Final = {"json": "json", "jsonl": "json", "csv": "csv", "parquet": "parquet", "arrow": "arrow"}


@dataclass(frozen=True, kw_only=True)
class Files:
    """Files of one kind; `loader` is the name that `datasets` knows it by."""

    loader: str
    paths: tuple[Path, ...]


def choose(directory: Path, config: DatasetConfig) -> Files:
    """Return the files to load: the one that is named, else all, which must be of one kind. Raises Problem."""
    if config.path:
        inside = PurePosixPath(config.path.lstrip("/"))
        # KAITO's paths begin at the parent of its data directory.
        parts = inside.parts[1:] if inside.parts[:1] == ("data",) else inside.parts
        if ".." in parts or not parts:
            raise Problem(f"DatasetConfig.dataset_path {config.path[:100]!r} leads elsewhere")
        path = directory.joinpath(*parts)
        if not path.is_file():
            raise Problem(f"DatasetConfig.dataset_path: there is no file {path}")
        return Files(loader=_loader(config.kind or path.suffix, str(path)), paths=(path,))
    found = sorted(
        path
        for path in directory.rglob("*")
        if path.suffix[1:].lower() in _LOADERS and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        raise Problem(f"there is no data in {directory}: no file of {', '.join(sorted(_LOADERS))}")
    loaders = sorted({_LOADERS[path.suffix[1:].lower()] for path in found})
    if config.kind:
        loaders = [_loader(config.kind, config.kind)]
    if len(loaders) > 1:
        raise Problem(
            f"the data is of several kinds ({', '.join(loaders)}): name one in DatasetConfig.dataset_extension"
        )
    return Files(
        loader=loaders[0], paths=tuple(path for path in found if _LOADERS[path.suffix[1:].lower()] == loaders[0])
    )


def shape(row: Mapping[str, Any], columns: Sequence[str], config: DatasetConfig) -> dict[str, Any]:
    """Return a row as trl's trainer takes it. Raises Problem where a column is missing."""
    messages = config.messages or ("messages" if "messages" in columns and config.response not in columns else "")
    if messages:
        return {"messages": row[_there(messages, columns, "messages_column")]}
    if config.context:
        context = _there(config.context, columns, "context_column")
        response = _there(config.response, columns, "response_column")
        return {"prompt": str(row[context]), "completion": str(row[response])}
    name = config.response if config.response in columns or len(columns) > 1 else columns[0]
    return {"text": str(row[_there(name, columns, "response_column")])}


def _there(name: str, columns: Sequence[str], option: str) -> str:
    if name not in columns:
        raise Problem(
            f"the data has no column {name[:60]!r} (DatasetConfig.{option}); it has {', '.join(columns)[:300]}"
        )
    return name


def _loader(kind: str, what: str) -> str:
    try:
        return _LOADERS[kind.lstrip(".").lower()]
    except KeyError:
        raise Problem(f"{what[:100]}: data must be of {', '.join(sorted(_LOADERS))}") from None
