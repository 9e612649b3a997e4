"""Where the services tool looks for a binary, in which order, and what it says when nothing will do."""

from pathlib import Path

import pytest

from stepgrant_services import ServiceMissing, binaries, find

ANSWERS = {
    "opa": "Version: {}",
    "vault": "Vault v{}, built today",
    "bao": "OpenBao v{}",
    "postgres": "postgres (PostgreSQL) {}",
}
OTHERS = ("initdb", "psql")


def program(folder: Path, name: str, version: str) -> Path:
    """A program that says it is `name` in `version`; for PostgreSQL with what belongs beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    answer = ANSWERS[name].format(version)
    for one in (name, *(OTHERS if name == "postgres" else ())):
        (folder / one).write_text(f"#!/bin/sh\necho '{answer}'\n", encoding="utf-8")
        (folder / one).chmod(0o755)
    return folder / name


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment in which nothing is found."""
    monkeypatch.setattr(binaries, "DEBIAN", tmp_path / "no-debian")
    monkeypatch.setattr(binaries, "SHARED_CACHE", tmp_path / "shared")
    return {"PATH": "", "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.mark.parametrize(("service", "good"), [("opa", "1.4.2"), ("vault", "1.20.0"), ("postgres", "17.2")])
def test_order_is_variable_then_path_then_cache(env: dict[str, str], tmp_path: Path, service: str, good: str) -> None:
    in_cache = binaries.cached(service, env)
    program(in_cache.parent, service, good)
    if service != "postgres":
        (in_cache.parent / service).rename(in_cache)
    assert (find(service, env).path, find(service, env).source) == (in_cache, "cache")

    on_path = program(tmp_path / "on-path", service, good)
    env["PATH"] = str(on_path.parent)
    assert (find(service, env).path, find(service, env).source) == (on_path, "PATH")

    named = program(tmp_path / "named", service, good)
    variable = binaries.KINDS[service].variable
    env[variable] = str(named.parent if service == "postgres" else named)
    assert (find(service, env).path, find(service, env).source, find(service, env).version) == (named, variable, good)


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        *[("opa", "0.70.0"), ("opa", "2.0.0")],
        *[("vault", "1.15.9"), ("vault", "2.0.0"), ("bao", "1.9.0"), ("bao", "3.0.0")],
        *[("postgres", "14.19"), ("postgres", "19.0")],
    ],
)
def test_other_versions_are_passed_over_and_named(env: dict[str, str], tmp_path: Path, name: str, refused: str) -> None:
    service = "vault" if name == "bao" else name
    env["PATH"] = str(program(tmp_path / "on-path", name, refused).parent)

    with pytest.raises(ServiceMissing, match=f"Passed over: .*version {refused}, wanted is "):
        find(service, env)


def test_a_later_folder_of_path_counts_when_an_earlier_has_the_wrong_version(
    env: dict[str, str], tmp_path: Path
) -> None:
    old = program(tmp_path / "old", "opa", "0.68.0")
    new = program(tmp_path / "new", "opa", "1.9.0")
    env["PATH"] = f"{old.parent}:{new.parent}"

    assert find("opa", env).path == new


def test_openbao_serves_as_vault(env: dict[str, str], tmp_path: Path) -> None:
    env["PATH"] = str(program(tmp_path / "on-path", "bao", "2.4.1").parent)

    assert find("vault", env).path == tmp_path / "on-path" / "bao"


@pytest.mark.parametrize(
    ("make", "objection"),
    [
        (lambda folder: folder / "nothing", "which is no program that can be run"),
        (lambda folder: program(folder, "opa", "0.1.0"), "version 0.1.0, wanted is 1.0 or newer"),
        (lambda folder: program(folder, "postgres", "16.1"), "it does not say that it is opa"),
    ],
)
def test_a_variable_is_never_passed_over(env: dict[str, str], tmp_path: Path, make: object, objection: str) -> None:
    assert callable(make)
    env["PATH"] = str(program(tmp_path / "on-path", "opa", "1.9.0").parent)
    env["STEPGRANT_OPA"] = str(make(tmp_path / "named"))

    with pytest.raises(ServiceMissing, match=f"STEPGRANT_OPA names .*{objection}.*mend or unset it"):
        find("opa", env)


def test_a_postgres_without_its_tools_is_passed_over(env: dict[str, str], tmp_path: Path) -> None:
    path = program(tmp_path / "on-path", "postgres", "16.1")
    path.with_name("psql").unlink()
    env["PATH"] = str(path.parent)

    with pytest.raises(ServiceMissing, match="lacks initdb or psql"):
        find("postgres", env)


def test_a_link_leads_to_the_folder_with_all_of_postgres(env: dict[str, str], tmp_path: Path) -> None:
    path = program(tmp_path / "real", "postgres", "16.1")
    links = tmp_path / "links"
    links.mkdir()
    (links / "postgres").symlink_to(path)
    env["PATH"] = str(links)

    assert find("postgres", env).path == path


def test_debians_folder_is_looked_into_newest_first(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "DEBIAN", tmp_path / "debian")
    for version in ("9", "15", "17"):
        program(tmp_path / "debian" / version / "bin", "postgres", f"{version}.1")

    assert find("postgres", env).version == "17.1"


@pytest.mark.parametrize("service", ["opa", "vault", "postgres"])
def test_nothing_found_says_what_to_install_and_to_set(env: dict[str, str], service: str) -> None:
    with pytest.raises(ServiceMissing) as caught:
        find(service, env)

    kind = binaries.KINDS[service]
    assert kind.install in str(caught.value)
    assert f"or set {kind.variable}." in str(caught.value)
    assert "make services-provision" in str(caught.value)


@pytest.mark.parametrize("name", ["relative", ""])
def test_only_an_absolute_cache_folder_counts(tmp_path: Path, name: str) -> None:
    cache = binaries.cache_folder("opa", {"XDG_CACHE_HOME": name, "HOME": str(tmp_path)})

    assert cache == tmp_path / ".cache" / "stepgrant" / "bin"


@pytest.mark.parametrize(("uid", "expected"), [(0, "shared/bin"), (1000, "cache/stepgrant/bin")])
def test_roots_postgres_lies_where_its_other_user_can_go(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, expected: str
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: uid)
    (tmp_path / "cache").mkdir(mode=0o700)

    assert binaries.cache_folder("postgres", env) == tmp_path / expected
    assert binaries.cache_folder("opa", env) == tmp_path / "cache" / "stepgrant" / "bin"
