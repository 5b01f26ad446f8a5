"""What a process prints is recorded as it stood on the screen, and printing is what it was before."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from program import terminal_output
from tracklayer.console import capturing, relay
from tracklayer.console.capturing import ConsoleCapture
from tracklayer.console.lines import LINE_LIMIT, Screen
from tracklayer.surroundings import ConsoleLine

WAIT = 60.0


def shown(*pieces: str, apart: float = 0.1) -> list[str]:
    """Return the lines that pieces become, printed so many seconds after each other."""
    screen = Screen("stdout")
    lines = [line for number, piece in enumerate(pieces) for line in screen.feed(piece, 1e9 + number * apart)]
    return [line.text for line in lines + screen.close()]


@pytest.fixture(autouse=True)
def _bare_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what another test's client put into the streams for good."""
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.delitem(vars(stream), "write", raising=False)


@pytest.fixture
def captured() -> Iterator[Callable[..., tuple[ConsoleCapture, list[ConsoleLine]]]]:
    """Start captures, and leave none behind."""
    begun: list[ConsoleCapture] = []

    def start(sink: Any = None) -> tuple[ConsoleCapture, list[ConsoleLine]]:
        lines: list[ConsoleLine] = []
        begun.append(ConsoleCapture(sink or lines.extend, "python"))
        begun[-1].start()
        return begun[-1], lines

    yield start
    for one in begun:
        one.stop()


def texts(lines: Sequence[ConsoleLine]) -> list[str]:
    return [line.text for line in lines]


# -- the screen --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "lines"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\n\n\nb", ["a", "", "", "b"]),
        ("  kept as it is  \n", ["  kept as it is  "]),
        ("windows\r\nlines\r\n", ["windows", "lines"]),
        ("\r 10%\r 50%\r100%\n", ["100%"]),
        ("long state\rshort\n", ["shortstate"]),
        ("long state\r\x1b[Kshort\n", ["short"]),
        ("long state\r\x1b[2Kshort\n", ["short"]),
        ("long state\rshort     \n", ["short"]),
        ("abc\b\bX\n", ["aXc"]),
        ("abc\x1b[2DX\x1b[2CY\n", ["aXc Y"]),
        ("abcdef\x1b[3GX\n", ["abXdef"]),
        ("\x1b[1;31mred\x1b[0m \x1b[38;5;12mblue\x1b[m\n", ["red blue"]),
        ("\x1b]0;a title\x07text\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", ["textlink"]),
        ("one\ntwo\x1b[A\rONE\n\n", ["ONE", "two"]),
        ("\n\rsecond bar\x1b[A\rfirst bar\n", ["first bar", "second bar"]),
        ("one\ntwo\x1b[F\x1b[Jgone\n", ["gone"]),
        ("a\x00b\x07c\td\n", ["a\x00b\x07c\td"]),
        ("half \udcff of it\n", ["half \\udcff of it"]),
        ("zażółć 雪 🙂\n", ["zażółć 雪 🙂"]),
        ("\x1b[?25lhidden cursor\x1b[?25h\n", ["hidden cursor"]),
        ("an end that never comes \x1b[31", ["an end that never comes "]),
    ],
)
def test_lines_are_as_a_terminal_shows_them_at_last(printed: str, lines: list[str]) -> None:
    assert shown(printed) == lines


@pytest.mark.parametrize("seed", range(20))
def test_it_does_not_matter_in_which_pieces_text_comes(seed: int) -> None:
    chance = random.Random(seed)
    parts = [
        "step 1\n",
        "\r 10%",
        "\x1b[31mred\x1b[0m",
        "\x1b[2K",
        "\n",
        "\x1b]0;t\x07",
        "żółw",
        "\b",
        "x",
    ]
    printed = "".join(chance.choices(parts, k=200))
    cuts = sorted(chance.sample(range(len(printed)), 40))
    pieces = [printed[a:b] for a, b in itertools.pairwise([0, *cuts, len(printed)])]
    assert shown(*pieces, apart=0.0) == shown(printed)


def test_lines_that_were_handed_on_and_are_rewritten_come_once_more() -> None:
    frames = [f"\x1b[2A\r\x1b[2Kouter {n}\n\r\x1b[2Kinner {n}\n" for n in range(50)]
    lines = shown("outer\ninner\n", *frames)
    assert lines == ["outer", "inner", "outer 49", "inner 49"]


def test_what_follows_a_rewritten_line_comes_ten_seconds_later_at_most() -> None:
    screen = Screen("stdout")
    assert screen.feed("a\nb\x1b[A\rA\n\nlog\n", 100.0) == []
    assert screen.ended(109.0) == []
    assert texts(screen.ended(111.0)) == ["A", "b", "log"]
    assert texts(screen.feed("plain\n", 112.0)) == ["plain"]


def test_only_the_last_lines_can_be_rewritten() -> None:
    rows = [f"row {n}" for n in range(100)]
    assert shown("\n".join(rows) + "\x1b[500A\rTOP")[:-32] == rows[:-32]


def test_rich_s_bars_are_recorded_in_their_last_state() -> None:
    from rich.console import Console
    from rich.progress import Progress

    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=60)
    with Progress(console=console, auto_refresh=False) as progress:
        tasks = [progress.add_task(name, total=20) for name in ("first", "second", "third")]
        for step in range(20):
            for task in tasks:
                progress.advance(task)
            progress.refresh()
            if step == 10:
                console.print("a line between")
    frames = written.getvalue().split("\x1b[1A")
    lines = shown(*("\x1b[1A" * bool(number) + frame for number, frame in enumerate(frames)))
    assert [line for line in lines if "100%" in line] == lines[-3:]
    assert "a line between" in lines
    assert len(lines) < 12


def test_tqdm_s_nested_bars_are_recorded_in_their_last_state() -> None:
    tqdm = pytest.importorskip("tqdm").tqdm
    written = io.StringIO()
    for _ in tqdm(range(3), desc="outer", file=written, mininterval=0, ncols=60):
        for _ in tqdm(range(3), desc="inner", file=written, mininterval=0, ncols=60, leave=False):
            pass
    lines = shown(written.getvalue())
    assert [line.split(":")[0] for line in lines] == ["outer"]
    assert "3/3" in lines[0]


def test_a_line_without_end_is_cut_and_takes_no_memory() -> None:
    screen = Screen("stdout")
    for _ in range(1000):
        assert screen.feed("x" * 10_000, 0.0) == []
    assert len(screen._rows[-1].text) == LINE_LIMIT
    (line,) = screen.feed("\n", 0.0)
    assert line.text.startswith("x" * LINE_LIMIT + " …")
    assert shown("y" * 20_000 + "\nnext\n")[1] == "next"


# -- Python's streams --------------------------------------------------------------------------------


def test_both_streams_are_recorded_in_order_and_the_end_of_the_last_line(captured: Any) -> None:
    capture, lines = captured()
    before = time.time()
    print("one")
    print("two", file=sys.stderr)
    sys.stdout.writelines(["thr", "ee\n"])
    print("no line end", end="")
    capture.stop()
    assert [(line.stream, line.text) for line in lines] == [
        ("stdout", "one"),
        ("stderr", "two"),
        ("stdout", "three"),
        ("stdout", "no line end"),
    ]
    assert all(before <= line.time <= time.time() for line in lines)


def test_a_line_is_recorded_soon_after_it_was_printed(captured: Any) -> None:
    _, lines = captured()
    print("now")
    deadline = time.monotonic() + 5
    while not lines:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_took_the_stream_earlier_is_heard(captured: Any) -> None:
    handler = logging.StreamHandler()
    logger = logging.getLogger("an old one")
    logger.addHandler(handler)
    capture, lines = captured()
    logger.warning("by a handler of before")
    capture.stop()
    logger.removeHandler(handler)
    assert texts(lines) == ["by a handler of before"]


@pytest.mark.parametrize("kind", ["capsys", "capfd", "capsysbinary"])
def test_pytest_s_own_capture_gets_all(kind: str, request: pytest.FixtureRequest, captured: Any) -> None:
    theirs = request.getfixturevalue(kind)
    stream = sys.stdout
    capture, lines = captured()
    print("both")
    sys.stdout.buffer.write(b"bytes\n")
    sys.stdout.flush()
    capture.stop()
    out = theirs.readouterr().out
    assert (out if isinstance(out, str) else out.decode()).splitlines() == ["both", "bytes"]
    assert texts(lines) == ["both"]
    assert sys.stdout is stream
    assert "write" not in vars(stream)


def test_a_redirected_stream_is_left_to_whoever_redirected_it(captured: Any) -> None:
    capture, lines = captured()
    with contextlib.redirect_stdout(io.StringIO()) as elsewhere:
        print("elsewhere")
        capture.stop()
        print("still elsewhere")
        assert sys.stdout is elsewhere
    assert elsewhere.getvalue().splitlines() == ["elsewhere", "still elsewhere"]
    assert texts(lines) == []
    assert "write" not in vars(sys.stdout)


def test_all_of_a_stream_is_as_it_was(captured: Any, capfd: Any) -> None:
    def properties() -> list[object]:
        stream = sys.stdout
        return [stream, stream.encoding, stream.errors, stream.fileno(), stream.isatty(), stream.buffer]

    before = properties()
    captured()
    assert properties() == before
    assert sys.stdout.write("four") == 4
    with pytest.raises(TypeError, match="str"):
        sys.stdout.write(b"bytes")  # type: ignore[arg-type]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_captures_end_in_any_order(order: Sequence[int], captured: Any) -> None:
    three = [captured() for _ in range(3)]
    print("to all")
    for number in order:
        three[number][0].stop()
        print(f"after {number}")
    for number, (_, lines) in enumerate(three):
        assert texts(lines) == ["to all", *(f"after {n}" for n in order[: order.index(number)])]
    assert "write" not in vars(sys.stdout)


def test_overlapping_captures_leave_nothing_behind(captured: Any) -> None:
    previous = captured()[0]
    for _ in range(100):
        following = captured()[0]
        previous.stop()
        previous = following
    cells: Any = [cell.cell_contents for cell in sys.stdout.write.__closure__]  # type: ignore[attr-defined]
    (below,) = [content for content in cells if getattr(content, "__name__", "") == "write"]
    assert not hasattr(below, "__closure__")  # but the stream's own
    previous.stop()


def test_another_s_patch_on_top_stays(captured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    capture, lines = captured()
    ours = sys.stdout.write
    seen: list[str] = []

    def theirs(text: str) -> int:
        seen.append(text)
        return ours(text)

    sys.stdout.write = theirs  # type: ignore[method-assign]
    print("one")
    capture.stop()
    print("two")
    assert sys.stdout.write is theirs
    assert seen == ["one", "\n", "two", "\n"]
    assert sys.stdout.getvalue() == "one\ntwo\n"  # type: ignore[attr-defined]
    assert texts(lines) == ["one"]


def test_a_stream_into_which_an_older_write_was_put_back_is_captured_again(captured: Any) -> None:
    older = sys.stdout.write
    capture, lines = captured()
    sys.stdout.write = older  # type: ignore[method-assign]
    deadline = time.monotonic() + WAIT
    while sys.stdout.write is older:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    print("again")
    capture.stop()
    assert texts(lines) == ["again"]
    vars(sys.stdout).pop("write")


def test_a_notebook_s_cells_are_recorded_from_the_one_that_began(
    captured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_each: list[Callable[..., None]] = []
    events = types.SimpleNamespace(
        register=lambda _, f: before_each.append(f), unregister=lambda _, f: before_each.remove(f)
    )
    ipython = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(events=events))
    monkeypatch.setitem(sys.modules, "IPython", ipython)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    kept: list[str] = []

    def cell(*actions: Callable[[], object]) -> None:  # as IPython 9 runs one
        original = sys.stdout.write

        def write(text: str) -> int:
            kept.append(text)
            return original(text)

        sys.stdout.write = write  # type: ignore[method-assign]
        for callback in before_each:
            callback(object())
        for action in actions:
            action()
        sys.stdout.write = original  # type: ignore[method-assign]

    runs: list[Any] = []
    for first in range(0, 30, 3):
        cell(lambda: runs.append(captured()), partial(print, first))
        cell(partial(print, first + 1))
        cell(partial(print, first + 2), runs[-1][0].stop)
    assert before_each == []
    assert [texts(lines) for _, lines in runs] == [[str(n), str(n + 1), str(n + 2)] for n in range(0, 30, 3)]
    whole = "".join(f"{n}\n" for n in range(30))
    assert "".join(kept) == sys.stdout.getvalue() == whole  # type: ignore[attr-defined]


def test_no_stream_is_no_trouble(captured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    captured()[0].stop()


def test_a_stream_that_cannot_be_captured_is_said_once_and_works(
    captured: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Closed:
        __slots__ = ("got",)

        def __init__(self) -> None:
            self.got: list[str] = []

        def write(self, text: str) -> None:
            self.got.append(text)

    stream = Closed()
    monkeypatch.setattr(sys, "stdout", stream)
    capture, lines = captured()
    print("to it")
    print("to the other", file=sys.stderr)
    capture.stop()
    assert stream.got == ["to it", "\n"]
    assert texts(lines) == ["to the other"]
    assert [record.getMessage() for record in caplog.records] == [
        "tracklayer: what is printed to this sys.stdout is not recorded: it cannot be captured"
    ]


def test_a_stream_that_says_nothing_and_takes_anything_is_no_trouble(
    captured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Anything:
        def write(self, thing: object) -> None:
            del thing

    monkeypatch.setattr(sys, "stdout", Anything())
    capture, lines = captured()
    sys.stdout.write(7)  # type: ignore[arg-type]
    sys.stdout.write("text\n")
    capture.stop()
    assert texts(lines) == ["text"]


def test_a_sink_that_fails_is_reported_once_and_the_streams_are_free(
    captured: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(lines: Sequence[ConsoleLine]) -> None:
        raise ValueError(len(lines))

    capture, _ = captured(fail)
    print("a line")
    capture._thread.join(WAIT)
    print("another")
    assert "write" not in vars(sys.stdout)
    assert [r.getMessage() for r in caplog.records] == [
        "tracklayer: what is printed is recorded no more: ValueError(1)"
    ]


def test_a_sink_that_hangs_keeps_nobody(captured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "_PATIENCE", 0.2)
    monkeypatch.setattr(capturing, "_WAITING", 100)
    hanging, got = threading.Event(), []

    def hang(lines: Sequence[ConsoleLine]) -> None:
        hanging.wait(WAIT)
        got.extend(lines)

    capture, _ = captured(hang)
    print("first")
    time.sleep(0.3)
    for number in range(1000):
        print(f"line {number}")
    thread = capture._thread
    start = time.monotonic()
    capture.stop()
    assert time.monotonic() - start < 2
    assert "write" not in vars(sys.stdout)
    assert len(capture._pieces) == 100
    hanging.set()
    thread.join(WAIT)
    assert texts(got)[0] == "first"
    assert texts(got)[-2] == "line 999"
    assert "came too fast" in texts(got)[-1]


def test_large_writes_that_wait_are_bounded_too(captured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "_LARGE_WAITING", 10_000)
    monkeypatch.setattr(capturing, "_INTERVAL", WAIT)
    capture, lines = captured()
    for _ in range(100):
        print("x" * 1000)
    capture.stop()
    assert len([line for line in lines if line.text]) == 12
    assert "came too fast" in lines[-1].text


def test_a_run_keeps_the_beginning_and_says_so(captured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "RUN_LIMIT", 100_000)
    capture, lines = captured()
    for number in range(10_000):
        print(f"line {number}")
    capture._thread.join(WAIT)
    assert "write" not in vars(sys.stdout)
    assert texts(lines[:-1]) == [f"line {number}" for number in range(len(lines) - 1)]
    assert 1_500 < len(lines) < 3_000
    assert "the rest is not recorded" in lines[-1].text


def test_threads_print_at_once(captured: Any) -> None:
    capture, lines = captured()

    def speak(name: int) -> None:
        for number in range(2000):
            sys.stdout.write(f"{name} {number}\n")

    threads = [threading.Thread(target=speak, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    capture.stop()
    for name in range(4):
        own = [line.text for line in lines if line.text.startswith(f"{name} ")]
        assert own == [f"{name} {number}" for number in range(2000)]


def test_a_forked_child_prints_and_nothing_of_it_is_recorded(captured: Any, capfd: Any) -> None:
    capture, lines = captured()
    print("parent", flush=True)
    child = os.fork()
    if child == 0:
        clean = "write" not in vars(sys.stdout)
        print(f"child {clean}", flush=True)
        capture.stop()
        os._exit(0)
    os.waitpid(child, 0)
    capture.stop()
    assert capfd.readouterr().out.splitlines() == ["parent", "child True"]
    assert texts(lines) == ["parent"]


@pytest.mark.slow
def test_printing_in_signal_handlers_and_finalizers_waits_for_nobody(captured: Any) -> None:
    class Speaking:
        def __del__(self) -> None:
            sys.stderr.write("finalized\n")

    handled = 0

    def handle(*_: object) -> None:
        nonlocal handled
        handled += 1
        os.write(2, b"")
        sys.stderr.write("handled\n")

    capture, lines = captured()
    previous = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        deadline = time.monotonic() + 1.0
        printed = 0
        while time.monotonic() < deadline:
            sys.stderr.write(f"line {printed}\n")
            printed += 1
            Speaking()
        start = time.monotonic()
        capture.stop()
        assert time.monotonic() - start < 5
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert handled > 10
    assert [t for t in texts(lines) if t.startswith("line")] == [f"line {n}" for n in range(printed)]
    assert texts(lines).count("finalized") == printed


# -- the process's own -------------------------------------------------------------------------------

PROGRAM = """
import ctypes, json, os, signal, subprocess, sys, time
from tracklayer.console.capturing import ConsoleCapture
from tracklayer.surroundings import ConsoleLine

def capturing(name, mode="process"):
    lines = []
    capture = ConsoleCapture(lines.extend, mode)
    capture.start()
    def stop():
        capture.stop()
        with open(name, "w") as file:
            json.dump(lines, file)
    return stop

stop = capturing("lines.json")
"""


def run(
    folder: Path, body: str, *, stdout: Any = subprocess.PIPE, **environment: str
) -> tuple[int, bytes, bytes]:
    """Run a program that captures its process; return its exit code and what really came."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + textwrap.dedent(body)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=WAIT,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "", **environment},
    )
    return done.returncode, done.stdout, done.stderr


def recorded(folder: Path, name: str = "lines.json") -> list[ConsoleLine]:
    return [ConsoleLine(*line) for line in json.loads((folder / name).read_text())]


@pytest.mark.slow
def test_c_code_and_children_are_recorded_in_order(tmp_path: Path) -> None:
    code, out, err = run(
        tmp_path,
        """
        print("python", flush=True)
        os.write(1, b"descriptor\\n")
        libc = ctypes.CDLL(None)
        libc.puts(b"c"); libc.fflush(None)
        subprocess.run("echo child; echo its error >&2", shell=True)
        if os.fork() == 0:
            print("forked", flush=True)
            os._exit(0)
        os.wait()
        sys.stdout.buffer.write("pół".encode()[:2]); sys.stdout.flush()
        sys.stdout.buffer.write("pół".encode()[2:] + b"\\n")
        stop()
        print("later")
        """,
    )
    assert code == 0
    expected = ["python", "descriptor", "c", "child", "forked", "pół"]
    assert out.decode().splitlines() == [*expected, "later"]
    assert err == b"its error\n"
    lines = recorded(tmp_path)
    assert [line.text for line in lines if line.stream == "stdout"] == expected
    assert [line.text for line in lines if line.stream == "stderr"] == ["its error"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("os._exit(7)", 7),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("ctypes.string_at(0)", -signal.SIGSEGV),
        ("raise SystemExit(3)", 3),
        ("stop()", 0),
    ],
)
def test_whatever_ends_the_program_all_that_it_printed_comes_out(
    tmp_path: Path, ending: str, code: int
) -> None:
    start = time.monotonic()
    done, out, _ = run(
        tmp_path,
        f"""
        for burst in range(10):
            os.write(1, b"")
            for number in range(10_000):
                print(f"{{burst}} {{number:90}}")
        sys.stdout.flush()
        {ending}
        """,
    )
    assert done == code
    assert out.decode() == "".join(
        f"{burst} {number:90}\n" for burst in range(10) for number in range(10_000)
    )
    assert time.monotonic() - start < 30
    if ending == "stop()":
        assert len(recorded(tmp_path)) == 100_000


@pytest.mark.slow
def test_a_terminal_stays_one(tmp_path: Path) -> None:
    body = """
print(sys.stdout.isatty(), os.isatty(2), os.get_terminal_size(1), flush=True)
for number in range(1000):
    print(f"\\r{number}", end="", flush=True)
print("\\n\\x1b[31mred\\x1b[0m")
stop()
"""
    bare = terminal_output(["-c", "import os, sys\nstop = lambda: None\n" + body], cwd=tmp_path)
    assert terminal_output(["-c", PROGRAM + body], cwd=tmp_path) == bare
    size = "True True os.terminal_size(columns=100, lines=40)"
    assert texts(recorded(tmp_path)) == [size, "999", "red"]


@pytest.mark.slow
def test_when_the_relay_is_killed_nothing_that_is_printed_is_lost(tmp_path: Path) -> None:
    code, out, _ = run(
        tmp_path,
        """
        import psutil
        for process in psutil.process_iter():
            try:
                is_ours = process.environ().get("RELAY_OF") == os.environ["RELAY_OF"]
                if is_ours and process.pid != os.getpid():
                    process.kill()
            except (psutil.Error, OSError):
                pass
        for number in range(20_000):
            print(f"line {number}")
        sys.stdout.flush()
        subprocess.run(["echo", "child"])
        stop()
        """,
        RELAY_OF=str(tmp_path),
    )
    assert code == 0
    assert sorted(out.decode().splitlines()) == sorted([*(f"line {n}" for n in range(20_000)), "child"])


@pytest.mark.slow
def test_no_relay_is_left_and_none_is_a_child(tmp_path: Path) -> None:
    code, out, _ = run(
        tmp_path,
        """
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("no child")
        stop()
        """,
        RELAY_OF=str(tmp_path),
    )
    assert (code, out) == (0, b"no child\n")
    deadline = time.monotonic() + 5
    while any(relay.__file__ in process.info["cmdline"] and _is_of(process, tmp_path) for process in _all()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _all() -> Iterator[psutil.Process]:
    return (process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"])


def _is_of(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.environ().get("RELAY_OF") == str(folder)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
def test_captures_of_the_process_end_in_any_order(tmp_path: Path, first: int) -> None:
    code, out, _ = run(
        tmp_path,
        f"""
        stops = [stop, capturing("inner.json")]
        print("both", flush=True)
        time.sleep(0.3)  # it passes the inner one first
        stops[{first}]()
        print("one", flush=True)
        stops[{1 - first}]()
        print("none", flush=True)
        """,
    )
    assert code == 0
    assert out.decode().splitlines() == ["both", "one", "none"]
    outer, inner = texts(recorded(tmp_path)), texts(recorded(tmp_path, "inner.json"))
    assert (inner, outer)[first] == ["both", "one"]
    assert (outer, inner)[first] == ["both"]


@pytest.mark.slow
def test_a_descriptor_that_the_program_replaced_stays_so(tmp_path: Path) -> None:
    code, out, _ = run(
        tmp_path,
        """
        print("before", flush=True)
        own = os.open("own", os.O_WRONLY | os.O_CREAT)
        os.dup2(own, 1)
        print("to its own", flush=True)
        stop()
        print("still", flush=True)
        """,
    )
    assert (code, out) == (0, b"before\n")
    assert (tmp_path / "own").read_text() == "to its own\nstill\n"
    assert texts(recorded(tmp_path)) == ["before"]


@pytest.mark.slow
def test_who_has_enough_ends_the_program_as_before(tmp_path: Path) -> None:
    body = 'number = 0\nwhile True:\n    print("line", number, flush=True)\n    number += 1\n'
    (tmp_path / "endless.py").write_text(PROGRAM + body)
    done = subprocess.run(
        f"{sys.executable} endless.py 2>error | head -n 2", shell=True, cwd=tmp_path, stdout=subprocess.PIPE,
        timeout=WAIT, check=False, env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )  # fmt: skip
    assert done.stdout == b"line 0\nline 1\n"
    deadline = time.monotonic() + WAIT
    while "BrokenPipeError" not in (tmp_path / "error").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
