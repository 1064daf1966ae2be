"""Where files that can be made again are kept: folders, permissions, and when nothing can be."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest
import torch

from evidence import datasets, storage
from evidence.datasets import DataFolderError, load_mnist
from evidence.model_store import train_once
from evidence.models import Autoencoder, squared_error
from evidence.state_file import load_state, save_state
from evidence.storage import (
    FOLDER_SETTINGS,
    CacheWarning,
    cache_dir,
    folder_setting,
    make_settings_absolute,
    write_whole,
)


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path):
    monkeypatch.setenv("EVIDENCE_PROGRESS", "0")
    monkeypatch.setenv("EVIDENCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EVIDENCE_DATA", raising=False)
    monkeypatch.delenv("EVIDENCE_MNIST", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def small_sample(monkeypatch):
    """Stand in for the sample, which takes seconds to parse."""
    tensors = {
        f"{split}_{part}": torch.arange(size * width, dtype=torch.uint8).reshape(size, *shape)
        for split, size in (("train", 4), ("test", 2))
        for part, width, shape in (("images", 784, (784,)), ("labels", 1, ()))
    }
    parsed = []
    monkeypatch.setattr(datasets, "_packaged_rows", lambda: parsed.append(1))
    monkeypatch.setattr(datasets, "_split_sample", lambda rows: tensors)
    monkeypatch.setattr(datasets, "SAMPLE_SIZES", {"train": 4, "test": 2})
    monkeypatch.setattr(datasets, "SAMPLE_SPLIT_SHA256", datasets._digest(tensors))
    return parsed


def trained(name="small"):
    model = Autoencoder(5, 2, (4,))
    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    history = train_once(model, x, squared_error, name=name, epochs=2, batch_size=10)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), history


def files_in(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


# --- folders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLDER_SETTINGS)
def test_a_relative_folder_is_refused_with_what_it_would_be(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for given, meant in (("data", "data"), ("./a b/ü", "a b/ü")):
        monkeypatch.setenv(name, given)
        with pytest.raises(ValueError, match=f"{name}: expected an absolute path") as caught:
            folder_setting(name)
        assert f"got {given!r}" in str(caught.value)
        assert f"would be {tmp_path / meant};" in str(caught.value)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("name", FOLDER_SETTINGS)
def test_absolute_home_and_unset_folders(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for given, meant in (
        (str(tmp_path / "x"), tmp_path / "x"), ("~/x", tmp_path / "x"), ("", None),
    ):  # fmt: skip
        monkeypatch.setenv(name, given)
        assert folder_setting(name) == meant
    monkeypatch.delenv(name)
    assert folder_setting(name) is None


def test_both_settings_are_read_by_this_rule(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("EVIDENCE_DATA", "data")
    with pytest.raises(DataFolderError, match=f"expected an absolute path.*{tmp_path / 'data'}"):
        load_mnist("test", "full")
    monkeypatch.setenv("EVIDENCE_CACHE", "data")
    for use in (cache_dir, lambda: load_mnist("test", "sample"), trained):
        with pytest.raises(ValueError, match=f"expected an absolute path.*{tmp_path / 'data'}"):
            use()


def test_a_command_makes_them_absolute_where_it_was_called(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVIDENCE_DATA", "my data")
    monkeypatch.setenv("EVIDENCE_CACHE", "~/cache")
    make_settings_absolute()
    assert os.environ["EVIDENCE_DATA"] == str(tmp_path / "my data")
    assert os.environ["EVIDENCE_CACHE"] == "~/cache"
    monkeypatch.setenv("EVIDENCE_DATA", "")
    monkeypatch.delenv("EVIDENCE_CACHE")
    make_settings_absolute()
    assert os.environ["EVIDENCE_DATA"] == ""
    assert "EVIDENCE_CACHE" not in os.environ


# --- writing ------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_all_that_is_kept_has_the_permissions_that_the_umask_asks_for(
    umask, mode, settings, small_sample, tmp_path
):
    before = os.umask(umask)
    try:
        load_mnist("test")
        trained()
        save_state(tmp_path / "state" / "checkpoint", {"a": 1})
    finally:
        os.umask(before)
    # The digits, the model with its lock, and the state.
    found = files_in(settings) + files_in(tmp_path / "state")
    assert len(found) == 4
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in found} == {
        path.name: oct(mode) for path in found
    }


@pytest.mark.parametrize("moment", ["opening", "writing", "renaming"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_file_as_it_was(tmp_path, monkeypatch, moment, error):
    path = tmp_path / "folder" / "file"
    write_whole(path, b"first")

    def fail(*arguments):
        raise error(errno.ENOSPC, "No space left on device")

    if moment == "renaming":
        monkeypatch.setattr(Path, "replace", fail)
    elif moment == "opening":
        monkeypatch.setattr(os, "open", fail)
    else:
        fdopen = os.fdopen

        def open_one_that_fails(handle, mode):
            file = fdopen(handle, mode)
            os.write(handle, b"sec")
            return FailingFile(file, fail)

        monkeypatch.setattr(os, "fdopen", open_one_that_fails)
    with pytest.raises(error):
        write_whole(path, b"second")
    monkeypatch.undo()
    assert path.read_bytes() == b"first"
    assert files_in(tmp_path) == [path]
    write_whole(path, b"third")
    assert path.read_bytes() == b"third"


class FailingFile:
    def __init__(self, file, fail):
        self.file, self.write = file, fail

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self.file.close()


# --- a cache is an optimisation -----------------------------------------------------------------


@pytest.fixture(params=[errno.EACCES, errno.EROFS, errno.ENOSPC])
def unwritable(request, monkeypatch, settings):
    """Let the cache be one that nothing can be written to, as on such a file system."""
    real_open, real_mkdir = os.open, os.mkdir

    def is_inside(path):
        return Path(os.fsdecode(path)).is_relative_to(settings)

    def refuse(path):
        raise OSError(request.param, os.strerror(request.param), str(path))

    def guarded_open(path, flags, *more, **others):
        if is_inside(path) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            refuse(path)
        return real_open(path, flags, *more, **others)

    def guarded_mkdir(path, *more, **others):
        if is_inside(path) and not Path(path).exists():
            refuse(path)
        return real_mkdir(path, *more, **others)

    def forbid():
        monkeypatch.setattr(os, "open", guarded_open)
        monkeypatch.setattr(os, "mkdir", guarded_mkdir)

    return forbid


def test_what_lies_in_a_read_only_cache_is_read_in_silence(
    unwritable, small_sample, recwarn, settings
):
    weights, history = trained()
    load_mnist("test")
    before = {path: path.read_bytes() for path in files_in(settings)}
    for path in before:
        if path.suffix == ".lock":
            path.unlink()
    unwritable()
    again, same_history = trained()
    assert torch.equal(again, weights)
    assert same_history.seconds == history.seconds
    assert len(load_mnist("train")) == 4
    assert small_sample == [1]
    assert [str(w.message) for w in recwarn] == []
    assert not any(path.suffix == ".lock" for path in files_in(settings))


def test_without_a_cache_all_works_with_a_warning(unwritable, small_sample, settings):
    expected, _ = trained("other")
    unwritable()
    for _ in range(2):
        with pytest.warns(
            CacheWarning, match=r"small-\w+\.safetensors.*Set EVIDENCE_CACHE"
        ) as said:
            weights, _ = trained()
        assert len(said) == 1
        assert said[0].filename == __file__
        assert torch.equal(weights, expected)
        with pytest.warns(CacheWarning, match="mnist-sample.*Set EVIDENCE_CACHE") as said:
            assert len(load_mnist("test")) == 2
        assert len(said) == 1


@pytest.mark.parametrize("case", ["no home", "a file in the way"])
def test_no_folder_for_a_cache_costs_a_warning(case, monkeypatch, tmp_path, small_sample):
    monkeypatch.chdir(tmp_path)
    if case == "no home":
        monkeypatch.delenv("EVIDENCE_CACHE")
        # What platformdirs returns where no home folder is known.
        monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: "~/.cache/evidence")
        with pytest.raises(storage.NoCacheError, match="no home folder"):
            cache_dir()
    else:
        (tmp_path / "cache").write_text("mine")
    with pytest.warns(CacheWarning, match=r"small.*Set EVIDENCE_CACHE"):
        trained()
    with pytest.warns(CacheWarning, match=r"mnist-sample.*Set EVIDENCE_CACHE"):
        load_mnist("test")
    assert [path.name for path in files_in(tmp_path)] == ["cache"][: case != "no home"]
    assert not (tmp_path / "~").exists()


def test_a_model_that_cannot_be_locked_is_stored_all_the_same(monkeypatch, settings, recwarn):
    """As in a folder of a group, where the lock of another user lies."""
    real_open = os.open

    def guarded_open(path, *more, **others):
        if os.fsdecode(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_open(path, *more, **others)

    monkeypatch.setattr(os, "open", guarded_open)
    weights, history = trained()
    again, same_history = trained()
    assert torch.equal(again, weights)
    assert same_history.seconds == history.seconds
    assert [str(w.message) for w in recwarn] == []


def test_a_whole_file_is_read_without_a_lock(monkeypatch):
    weights, _ = trained()
    monkeypatch.setattr("evidence.model_store.FileLock", None)
    assert torch.equal(trained()[0], weights)


def test_a_model_that_must_not_be_read_is_trained(settings, monkeypatch):
    weights, _ = trained()
    (path,) = settings.rglob("*.safetensors")

    def refuse(*arguments, **more):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("evidence.model_store.load_state", refuse)
    again, _ = trained()
    assert torch.equal(again, weights)
    monkeypatch.undo()
    assert load_state(path)["key"]


@pytest.mark.skipif(
    os.name != "posix" or not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="root may write anywhere",
)
def test_another_users_cache(settings):
    weights, _ = trained()
    script = "import test_storage as t; print(t.trained()[0].sum().item())"
    for path in (*files_in(settings), settings / "models"):
        path.chmod(0o444 if path.is_file() else 0o555)
    try:
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            cwd=Path(__file__).parent, capture_output=True, text=True,
        )  # fmt: skip
    finally:
        (settings / "models").chmod(0o755)
    assert run.stderr == ""
    assert float(run.stdout) == weights.sum().item()
