"""Files that are staged beside their place."""

import fcntl
import threading
from types import SimpleNamespace

from gpupipe.sinks import files
from gpupipe.sinks.files import staged_beside


def test_two_that_write_one_file_take_turns(tmp_path, monkeypatch):
    turns, asked, flock = [], [], fcntl.flock
    waiting = threading.Event()

    def locking(fd, how):
        asked.append(how)
        if len(asked) == 2:
            waiting.set()
        flock(fd, how)

    monkeypatch.setattr(files, "fcntl", SimpleNamespace(flock=locking, LOCK_EX=fcntl.LOCK_EX))

    def write(word):
        with staged_beside(tmp_path / "a.pkl") as partial:
            turns.append(f"{word} begins")
            partial.write_text(word)
            if word == "first":
                other.start()
                assert waiting.wait(30)
            turns.append(f"{word} ends")

    other = threading.Thread(target=write, args=["second"])
    write("first")
    other.join()
    assert turns == ["first begins", "first ends", "second begins", "second ends"]
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.pkl", "second")]
