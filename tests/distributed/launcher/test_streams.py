"""What ranks write: shown in time, line by line, by whatever means they write it."""

import subprocess
import sys
import time
from typing import Any

import pytest
from support.ranks import LIMIT

from labkit.distributed import Ranks, launch, tell
from labkit.distributed.launcher.streams import Printer, Screen

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("nothing_is_left")]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ([(0, "one\n"), (1, "two\nthree\n")], "[rank 0] one\n[rank 1] two\n[rank 1] three\n"),
        ([(0, "load"), (0, "ing "), (0, "done\n")], "[rank 0] loading done\n"),
        ([(0, "a"), (1, "b\n"), (0, "\n"), (0, "c\n")], "[rank 0] a\n[rank 1] b\n[rank 0] c\n"),
        ([(0, "a"), (1, "b"), (0, "c\n")], "[rank 0] a\n[rank 1] b\n[rank 0] c\n"),
        ([(0, "\r 0%"), (0, "\r50%"), (0, "\n")], "\r[rank 0]  0%\r[rank 0] 50%\n"),
        ([(0, "\r 0%"), (1, "\r 5%"), (0, "\r50%")], "\r[rank 0]  0%\r[rank 1]  5%\r[rank 0] 50%"),
        ([(0, "10%\r"), (0, "20%\r")], "[rank 0] 10%\r[rank 0] 20%\r"),
        ([(0, "\n"), (1, "a\n\nb\n")], "\n[rank 1] a\n\n[rank 1] b\n"),
        ([(0, "back\\slash \\g<0>\n")], "[rank 0] back\\slash \\g<0>\n"),
    ],
)
def test_pieces_of_lines_on_one_screen(
    written: list[tuple[int, str]], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Screen()
    for rank, text in written:
        screen.show("stdout", rank, text)
    assert capsys.readouterr().out == shown


def test_what_is_sent_when() -> None:
    sent: list[str] = []
    printer = Printer(lambda kind, text: sent.append(text), "stdout")
    for write, expected in (
        (lambda: print("a\nb", file=printer), ["a\n", "b\n"]),
        (lambda: print("c", end="", file=printer), []),
        (printer.flush, ["c"]),
        (lambda: printer.write("\r50%"), ["\r50%"]),
        (lambda: printer.buffer.write("é".encode()[:1]), []),
        (lambda: printer.buffer.write("é\n".encode()[1:]), ["é\n"]),
        (lambda: print("\udcff", file=printer), ["\\udcff\n"]),
        (lambda: print("end", end="", file=printer), []),
        (printer.finish, ["end", "\n"]),
    ):
        sent.clear()
        write()
        assert sent == expected
    assert (printer.encoding, printer.isatty(), printer.writable()) == ("utf-8", False, True)


def test_a_bar_moves_while_its_rank_works(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        for percent in (0, 50, 100):
            print(f"\r{percent}%", end="", flush=True)
            tell(percent, 0.0)
            time.sleep(0.3)

    seen = []
    for _ in Ranks(work, 1, **LIMIT):  # each step has come after its bar
        seen.append(capsys.readouterr().out)
    assert seen == ["\r[rank 0] 0%", "\r[rank 0] 50%", "\r[rank 0] 100%"]
    assert capsys.readouterr().out == "\n"


class Noisy:
    """A data set that speaks in the loader's worker; it stands in no module of a rank's."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        print(f"item {index} " + "x" * 5000)
        return index**2


def past_python() -> Any:
    import faulthandler
    import os

    from torch.utils.data import DataLoader

    subprocess.run([sys.executable, "-c", "print('from a child')"], stdout=sys.stdout, check=True)
    os.write(sys.stderr.fileno(), b"straight on")
    sys.stdout.buffer.write(b"in bytes\n")
    faulthandler.enable()
    loader = DataLoader(Noisy(), num_workers=2, collate_fn=lambda items: sum(items))  # type: ignore[arg-type]
    return sum(loader)


def test_a_loader_s_workers_a_child_and_a_descriptor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Noisy, "__module__", "__main__")  # so that it travels as a cell's does
    monkeypatch.setattr(past_python, "__module__", "__main__")
    assert launch(past_python, 2, **LIMIT) == [140, 140]
    out, err = capsys.readouterr()
    for rank in (0, 1):
        lines = [line for line in out.splitlines() if line.startswith(f"[rank {rank}] ")]
        items = [f"[rank {rank}] item {index} " + "x" * 5000 for index in range(8)]
        both = [f"[rank {rank}] from a child", f"[rank {rank}] in bytes"]
        assert sorted(lines) == sorted([*items, *both])
        assert f"[rank {rank}] straight on\n" in err
