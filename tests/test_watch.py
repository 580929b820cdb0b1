"""``squad-lit watch`` as a process: started, fed, stopped, killed and started again."""

import csv
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from squad_lit.watch import main

PROGRAM = Path(__file__).parent / "sample" / "bright.py"


class Line:
    """A folder that a process watches."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder, self.output, self.model = root, root / "in", root / "out", root / "model.txt"
        self.folder.mkdir()
        self.model.write_text("1")
        self.process: subprocess.Popen[str] | None = None

    def start(self, *options: str, **environment: str) -> None:
        command = [sys.executable, str(PROGRAM), str(self.folder), "--checkpoint", str(self.model)]
        command += ["--output", str(self.output), "--interval", "0.05", *options]
        with (self.root / "lines").open("a") as out, (self.root / "err").open("a") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env=os.environ | environment, text=True)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def put(self, name: str, brightness: int, side: int = 16) -> None:
        """Write an image under another name, and rename it."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (side, side), brightness).save(path.with_name(f"{path.name}.part"), "PNG")
        path.with_name(f"{path.name}.part").rename(path)

    def rows(self) -> list[dict[str, str]]:
        with (self.output / "predictions.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in (self.root / "lines").read_text().splitlines()]

    def said(self) -> str:
        return (self.root / "err").read_text()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path)
    yield line
    if line.process is not None and line.process.poll() is None:
        line.process.kill()
        line.process.wait()


class Server:
    """Takes what is posted, and answers with a status."""

    def __init__(self, port: int = 0) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if server.status == 200:
                    server.bodies.append(body)
                self.send_response(server.status)
                if server.status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_images_are_judged_as_they_arrive(line: Line, number: int) -> None:
    line.put("before.png", 50)
    line.start()
    line.wait_for(lambda: (line.root / "lines").exists() and len(line.lines()) == 1)
    line.put("cam 1/ü.png", 200)
    line.put(".hidden.png", 200)
    line.wait_for(lambda: len(line.lines()) == 2)
    assert line.stop(number) == 0
    assert "stopped after 2 images" in line.said()
    first, second = line.lines()
    assert (first["name"], first["anomaly_score"], first["label"], first["regions"]) == ("before.png", 50, 0, 0)
    assert first["largest_box"] is None
    assert (second["name"], second["anomaly_score"], second["label"]) == ("cam 1/ü.png", 200, 1)
    assert (second["largest_box"], second["largest_area"], second["threshold"]) == ([0, 0, 16, 16], 256, 99)
    assert [row["name"] for row in line.rows()] == ["before.png", "cam 1/ü.png"]
    assert line.rows()[1]["largest_box"] == "0 0 16 16"
    for kind, ending in {"map": "tiff", "mask": "png", "overlay": "png"}.items():
        assert (line.output / kind / "cam 1" / f"ü.png.{ending}").is_file()
    line.start("--no-map", "--no-overlay")
    line.put("after.png", 60)
    line.wait_for(lambda: len(line.lines()) == 3)
    line.stop()
    assert [row["name"] for row in line.rows()] == ["before.png", "cam 1/ü.png", "after.png"]
    assert len([path for path in line.output.rglob("*") if path.suffix in (".tiff", ".png")]) == 6


def test_no_image_is_lost_or_repeated_by_kills(line: Line) -> None:
    chance, server, count = random.Random(0), Server(), 0
    for _ in range(4):
        line.start("--post", f"http://127.0.0.1:{server.port}", PAUSE="0.01")
        end = time.monotonic() + 0.6 + 0.6 * chance.random()
        while time.monotonic() < end:
            line.put(f"{count:04}.png", count % 90)
            count += 1
            time.sleep(0.01)
        line.stop(signal.SIGKILL)
    line.start("--post", f"http://127.0.0.1:{server.port}")
    line.wait_for(lambda: len(server.bodies) >= count and len(line.rows()) >= count)
    assert line.stop() == 0
    assert Counter(row["name"] for row in line.rows()) == {f"{i:04}.png": 1 for i in range(count)}
    assert all(float(row["anomaly_score"]) == int(row["name"][:4]) % 90 for row in line.rows())
    for told in (line.lines(), server.bodies):  # a kill may repeat one, under its number
        of_id = {one["id"]: one["name"] for one in told}
        assert sorted(of_id.values()) == sorted(row["name"] for row in line.rows())
        assert len(told) - len(of_id) <= 4 * 32
    ids = [one["id"] for one in server.bodies]
    assert all(later >= earlier for earlier, later in itertools.pairwise(ids))
    server.close()


def test_what_is_posted_waits_on_the_disk_for_the_server(line: Line) -> None:
    server = Server()
    port = server.port
    server.close()
    line.put("a.png", 10)
    line.start("--post", f"http://127.0.0.1:{port}/line?a=1")
    line.wait_for(lambda: "trying again" in line.said() and len(line.rows()) == 1)
    assert line.stop() == 0
    line.put("b.png", 20)
    server = Server(port)
    server.status = 302  # a redirection would lose the line
    line.start("--post", f"http://127.0.0.1:{port}/line?a=1")
    line.wait_for(lambda: "status 302" in line.said() and len(line.rows()) == 2)
    server.status = 200
    line.wait_for(lambda: len(server.bodies) == 2)
    assert line.stop() == 0
    assert [body["name"] for body in server.bodies] == ["a.png", "b.png"]
    assert server.bodies == line.lines()
    assert "answers again; 1 line" in line.said()
    server.close()


def test_another_model_is_used_as_soon_as_its_file_changes(line: Line) -> None:
    line.start()
    line.put("a.png", 60)
    line.wait_for(lambda: (line.root / "lines").exists() and len(line.lines()) == 1)
    line.model.write_text("no number")
    line.wait_for(lambda: "the model before goes on" in line.said())
    line.put("b.png", 60)
    line.wait_for(lambda: len(line.lines()) == 2)
    line.model.write_text("2.0")
    line.wait_for(lambda: "another model" in line.said())
    line.put("c.png", 60)
    line.wait_for(lambda: len(line.lines()) == 3)
    assert line.stop() == 0
    assert [(one["name"], one["anomaly_score"]) for one in line.lines()] == [
        ("a.png", 60),
        ("b.png", 60),
        ("c.png", 120),
    ]
    assert len({one["model"] for one in line.lines()}) == 2
    assert json.loads((line.output / "calibration.json").read_text()).keys() == {one["model"] for one in line.lines()}


def test_old_rows_and_files_are_removed(line: Line) -> None:
    for i in range(40):
        line.put(f"day {i // 10}/{i:02}.png", i)
    line.start("--keep", "8")
    line.wait_for(lambda: (line.root / "lines").exists() and len(line.lines()) == 40)
    for i in range(40, 43):
        line.put(f"day 4/{i:02}.png", i)
        line.wait_for(lambda: len(line.lines()) == i + 1)  # noqa: B023
    assert line.stop() == 0
    assert [row["name"] for row in line.rows()] == [f"day {i // 10}/{i:02}.png" for i in range(35, 43)]
    for kind in ("map", "mask", "overlay"):
        assert {path.name[:2] for path in (line.output / kind).rglob("*.*")} == {str(i) for i in range(35, 43)}
        assert {path.name for path in (line.output / kind).iterdir()} == {"day 3", "day 4"}
    line.start("--keep", "8")  # what was removed is not judged again
    line.put("last.png", 1)
    line.wait_for(lambda: len(line.lines()) == 44)
    line.stop()
    assert line.lines()[-1]["name"] == "last.png"


def test_a_drift_is_told_across_a_restart(line: Line) -> None:
    shades = np.random.default_rng(0).integers(0, 100, 100)
    for i, shade in enumerate(shades):
        line.put(f"{i:03}.png", int(shade))
    line.start()
    line.wait_for(lambda: (line.root / "lines").exists() and len(line.lines()) == 100)
    for i in range(100, 108):  # too few to be sure
        line.put(f"{i:03}.png", 95 + i % 4)
    line.wait_for(lambda: len(line.lines()) == 108)
    line.stop()
    line.start()
    for i in range(108, 160):
        line.put(f"{i:03}.png", 95 + i % 4)
    line.wait_for(lambda: len(line.lines()) == 160)
    line.stop()
    (told,) = [one for one in line.lines() if "drift" in one]
    assert 108 < told["id"] < 150
    assert told["drift"] in line.said()
    assert "the median score of the last" in told["drift"]


def test_a_file_is_judged_when_it_is_whole(line: Line) -> None:
    line.put("source.png", 40, side=64)
    content = (line.folder / "source.png").read_bytes()
    (line.folder / "slow.png").write_bytes(content[: len(content) // 2])
    line.start()
    line.wait_for(lambda: (line.root / "lines").exists() and len(line.lines()) == 1)
    time.sleep(0.3)  # some looks
    with (line.folder / "slow.png").open("ab") as file:
        file.write(content[len(content) // 2 :])
    line.wait_for(lambda: len(line.lines()) == 2)
    assert line.stop() == 0
    assert [(one["name"], one["anomaly_score"]) for one in line.lines()] == [("source.png", 40), ("slow.png", 40)]


def test_an_image_without_a_score_is_told_and_the_others_are_judged(line: Line) -> None:
    for i, brightness in enumerate([10, 255, 20]):
        line.put(f"{i}.png", brightness)
    line.start()
    line.wait_for(lambda: (line.root / "lines").exists() and len(line.lines()) == 3)
    line.stop()
    line.start()
    line.put("3.png", 30)
    line.wait_for(lambda: len(line.lines()) == 4)
    line.stop()
    assert [(one["name"], one.get("anomaly_score")) for one in line.lines()] == [
        *(("0.png", 10), ("1.png", None), ("2.png", 20), ("3.png", 30))
    ]
    assert "the score of an image is nan" in line.lines()[1]["error"]
    assert f"skipped: {line.folder / '1.png'}: the score" in line.said()
    assert [row["name"] for row in line.rows()] == ["0.png", "2.png", "3.png"]


def test_an_output_folder_is_of_one_process(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    line.start()
    line.wait_for(lambda: "watching" in line.said())
    command = [str(line.folder), "--checkpoint", str(line.model), "--output", str(line.output)]
    assert main(command) == 1
    assert "is in use by process" in capsys.readouterr().err
    assert main([str(line.root / "absent"), *command[1:]]) == 1
    assert "no folder" in capsys.readouterr().err
    assert main([*command, "--run-length", "0"]) == 1
    assert "--run-length: expected a number of images above 1" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--keep", "0"), ("--interval", "0"), ("--interval", "nan")])
def test_numbers_out_of_range_are_refused(line: Line, option: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        main([str(line.folder), "--checkpoint", "m", "--output", "o", *option])
