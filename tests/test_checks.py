"""What can be seen at once is said at once: no page is executed first, and no target is made."""

import socket
import sys

import pytest
from small_book import SmallBook, code

from evidence_book import browser, checks, serving
from evidence_book.__main__ import main


@pytest.fixture
def book(tmp_path, monkeypatch):
    for name in ("EVIDENCE_MNIST", "EVIDENCE_DATA", "EVIDENCE_CHROMIUM"):
        monkeypatch.delenv(name, raising=False)
    return SmallBook(tmp_path, {"one": [code("open('executed', 'w').close()")]})


def refused(book, capsys, *arguments):
    """What a command says that must not start to work."""
    assert book.main(*arguments) == 1
    assert not (book.root / "book" / "executed").exists()
    return capsys.readouterr().err


@pytest.fixture(
    params=[("build",), ("execute",), ("notebooks",), ("stages", "build")], ids=" ".join
)
def command(request):
    return request.param


@pytest.fixture
def no_chromium(monkeypatch):
    monkeypatch.setenv("EVIDENCE_CHROMIUM", "/no/such/chromium")


def test_a_port_that_is_taken_is_named_before_the_build(book, capsys):
    with socket.create_server((serving.HOST, 0)) as other:
        port = other.getsockname()[1]
        said = refused(book, capsys, "serve", "--port", str(port))
    assert f"PORT: expected a free port of this machine, got {port}" in said
    assert f"make serve PORT={port + 1}" in said


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_does_not_exist_is_refused(book, capsys, port):
    said = refused(book, capsys, "serve", f"--port={port}")
    assert f"PORT: expected a number from 1 to 65535, got {port}" in said


def test_a_port_is_taken_for_the_server_and_given_back():
    with socket.create_server((serving.HOST, 0)) as free:
        port = free.getsockname()[1]
    with serving.take_port(port):
        pass
    with serving.take_port(port) as taken:
        assert taken.getsockname() == (serving.HOST, port)


def test_data_that_are_not_there_are_named(book, capsys, monkeypatch, command):
    monkeypatch.setenv("EVIDENCE_MNIST", "huge")
    said = refused(book, capsys, *command)
    assert "EVIDENCE_MNIST" in said
    assert "'huge'" in said
    monkeypatch.setenv("EVIDENCE_MNIST", "full")
    monkeypatch.setenv("EVIDENCE_DATA", str(book.root / "nowhere"))
    said = refused(book, capsys, *command)
    assert "EVIDENCE_DATA" in said
    assert "nowhere" in said


def test_the_tests_full_set_is_looked_for_without_the_other_setting(book, capsys, monkeypatch):
    monkeypatch.setenv("EVIDENCE_DATA", str(book.root / "nowhere"))
    said = refused(book, capsys, "stages", "build")
    assert "EVIDENCE_DATA" in said
    assert "nowhere" in said


def test_without_settings_no_data_are_loaded(book, monkeypatch):
    monkeypatch.setitem(sys.modules, "evidence.datasets", None)
    checks.check_data()
    monkeypatch.setenv("EVIDENCE_DATA", str(book.root / "nowhere"))
    checks.check_data()
    monkeypatch.setenv("EVIDENCE_MNIST", "sample")
    with pytest.raises(ImportError):
        checks.check_data()


def test_a_build_folder_that_cannot_be_written_is_named(book, capsys, command):
    book.write("_build", "a file")
    said = refused(book, capsys, *command)
    assert "expected a folder that can be written" in said
    assert str(book.root / "_build") in said


def test_a_folder_of_others_is_refused(tmp_path, monkeypatch):
    # (Permissions taken away would not stop root.)
    def denied(**folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(checks.tempfile, "TemporaryFile", denied)
    with pytest.raises(checks.NotReadyError, match=r"can be written, got .*Permission denied"):
        checks.check_writable(tmp_path)


def test_a_lock_that_could_not_be_kept_is_not_made(book, capsys, monkeypatch):
    def fail(folder):
        raise checks.NotReadyError(f"no: {folder}")

    monkeypatch.setattr(checks, "check_writable", fail)
    assert refused(book, capsys, "lock") == f"no: {book.root}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: [", "_config.yml cannot be used: while parsing"),
        ("title: 3\n", "_config.yml cannot be used: - 3 is not of type 'string'"),
        (None, "No such file"),
    ],
)
@pytest.mark.parametrize("command", [("build",), ("stages", "build")], ids=" ".join)
def test_settings_that_jupyter_book_would_refuse_are_named(book, capsys, text, said, command):
    if text is None:
        (book.root / "_config.yml").unlink()
    else:
        book.write("_config.yml", text)
    assert said in refused(book, capsys, *command)


@pytest.mark.parametrize("arguments", [("build", "--browser"), ("stages", "build", "browser")])
def test_a_missing_chromium_is_named_before_the_build(book, capsys, no_chromium, arguments):
    assert "EVIDENCE_CHROMIUM is '/no/such/chromium'" in refused(book, capsys, *arguments)


def test_what_is_no_browser_is_found_out(monkeypatch):
    monkeypatch.setenv("EVIDENCE_CHROMIUM", sys.executable)
    with pytest.raises(checks.NotReadyError, match="Chromium was found and does not start"):
        checks.check_browser()


def test_no_browser_at_all_is_said_with_what_helps(monkeypatch):
    monkeypatch.delenv("EVIDENCE_CHROMIUM", raising=False)
    monkeypatch.setattr(browser, "NAMES", ("no-such-browser",))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", "/nowhere")
    with pytest.raises(checks.NotReadyError, match="no Chromium was found"):
        checks.check_browser()


def test_a_build_alone_asks_for_no_browser(book, no_chromium, monkeypatch):
    monkeypatch.setattr("evidence_book.__main__.run", lambda root, options, others: 7)
    monkeypatch.chdir(book.root)
    assert main(["build"]) == 7
