"""Reading scenario files: what is wrong in one is told with its line, its field and a remedy."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from ...config.explain import findings, unknown
from ...errors import ConfigError, NotFoundError
from .adopt import adopt
from .model import Scenario
from .places import Document, Location, read_yaml

__all__ = ["LoadedScenario", "find_scenarios", "list_scenarios", "load_scenarios", "scenario_schema"]

_SUFFIXES: Final = (".yaml", ".yml")


class LoadedScenario(Scenario):
    """A scenario of a file.

    Attributes:
        source: The file.
        notes: What the file asks for that is not checked here.
    """

    source: Path
    notes: tuple[str, ...] = ()


def load_scenarios(path: Path) -> tuple[Scenario, ...]:
    """Read a file: one scenario, or several under ``scenarios``, for which the other keys are defaults.

    Raises:
        ConfigError: The file is wrong; the message has a line for each fault.
    """
    document = read_yaml(path)
    data = document.data
    if not isinstance(data, dict):
        raise ConfigError(f"{document.place_of(())}: a scenario file holds keys and values, such as name and turns")
    if "scenarios" not in data:
        return (_scenario(data, (), document),)
    entries = data["scenarios"]
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{document.place_of(('scenarios',))}: scenarios: must be a list with at least one scenario")
    defaults = {key: value for key, value in data.items() if key != "scenarios"}
    scenarios = tuple(_entry(entry, number, defaults, document) for number, entry in enumerate(entries))
    _check_names(scenarios, document)
    return scenarios


def find_scenarios(names: Iterable[str]) -> tuple[Scenario, ...]:
    """Return the scenarios of files, folders, and names of those that come with the package.

    Raises:
        NotFoundError: There is none of that name.
        ConfigError: A file is wrong.
    """
    found: list[Scenario] = []
    for name in names:
        for path in _files_of(name):
            found += load_scenarios(path)
    return tuple(found)


def list_scenarios() -> list[str]:
    """Return the names of the scenarios that come with the package."""
    return sorted(path.stem for path in _packaged().glob("*.yaml"))


def scenario_schema() -> dict[str, Any]:
    """Return the JSON schema of a file with one scenario, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Scenario.model_json_schema()}


def _files_of(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
        if not files:
            raise NotFoundError(f"there is no scenario (*.yaml) in {path}")
        return files
    if path.suffix in _SUFFIXES or "/" in name:
        if not path.is_file():
            raise NotFoundError(f"there is no scenario file {path}")
        return [path]
    if name not in list_scenarios():
        raise NotFoundError(f"{unknown('scenario', name, list_scenarios())}; a file ends in .yaml")
    return [_packaged() / f"{name}.yaml"]


def _packaged() -> Path:
    return Path(str(resources.files(__package__.rpartition(".")[0]))) / "scenarios"


def _entry(entry: object, number: int, defaults: dict[str, Any], document: Document) -> Scenario:
    location: Location = ("scenarios", number)
    if not isinstance(entry, dict) or "scenarios" in entry:
        raise ConfigError(f"{document.place_of(location)}: a scenario has keys and values, and no scenarios of its own")
    if not entry.get("name"):
        raise ConfigError(f"{document.place_of(location)}: name: is missing; each scenario of a file needs its own")
    file_name = defaults.get("name") or document.place_of(()).file.stem
    return _scenario({**defaults, **entry, "name": f"{file_name}/{entry['name']}"}, location, document)


def _scenario(data: dict[str, Any], location: Location, document: Document) -> Scenario:
    source = document.place_of(()).file
    try:
        adopted, notes = adopt(data)
        for key in ("source", "notes"):
            if key in adopted:
                raise ConfigError(unknown("key", key, Scenario.model_fields), param=key)
        text = json.dumps({**adopted, "source": str(source), "notes": notes})
        return LoadedScenario.model_validate_json(text)
    except ConfigError as error:
        raise ConfigError(f"{document.place_of((*location, *_parts(error.param)))}: {error}") from None
    except ValidationError as error:
        raise _explained(error, location, document) from None


def _explained(error: ValidationError, location: Location, document: Document) -> ConfigError:
    lines = []
    found = findings(error, Scenario)
    for path, text in found:
        # What is wrong inside of a list makes pydantic find fault with the list too.
        if any(other.startswith(f"{path}.") for other, _ in found):
            continue
        within = _parts(path)
        # What a scenario of several does not say itself stands at the top of the file.
        own = (*location, *within)
        at = own if location == () or (*location, *within[:1]) in document.places else within
        lines.append(f"{document.place_of(at)}: {path + ': ' if path else ''}{text}")
    return ConfigError("\n".join(lines))


def _parts(path: str | None) -> Location:
    return tuple(int(part) if part.isdigit() else part for part in (path or "").split(".") if part)


def _check_names(scenarios: tuple[Scenario, ...], document: Document) -> None:
    names = [scenario.name for scenario in scenarios]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ConfigError(f"{document.place_of(('scenarios', number))}: the name {name!r} is given twice")
