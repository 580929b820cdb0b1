"""The service over a real connection, with a model whose map is the brightness of the image."""

import base64
import contextlib
import io
import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_predictor import Brightness

pytest.importorskip("fastapi", reason="the extra serve")
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

import squad_lit.deploy.serve.service
from squad_lit.deploy.drift import DriftMonitor
from squad_lit.deploy.output_folder import overlay
from squad_lit.deploy.predictor import Predictor
from squad_lit.deploy.runtime import Output
from squad_lit.deploy.serve.service import Limits, make_app

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # two normal images support no rate
SIZE = (20, 30)
LIMITS = Limits(megabytes=1, megapixels=0.1, seconds=20, images=16)


class Model(Brightness):
    """Waits for the key before it judges, where there is one."""

    def __init__(self, key: threading.Event | None = None) -> None:
        super().__init__(SIZE)
        self.metadata["categories"] = ["cap"]
        self.key, self.busy = key, threading.Event()

    def run(self, image: np.ndarray) -> Output:
        if self.key is not None and len(self.batches) > 0:  # the first one is the service's own
            self.busy.set()
            assert self.key.wait(20)
        return super().run(image)


@contextlib.contextmanager
def serving(limits: Limits = LIMITS, token: str | None = None, **models: Model) -> Iterator[str]:
    """The address of a service of the models."""
    app = make_app({name: Predictor(model) for name, model in models.items()}, limits, token)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def ask(address: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, content and headers of an answer."""
    request = urllib.request.Request(address, body, {key.replace("_", "-"): value for key, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            content, status, found = answer.read(), answer.status, answer.headers
    except urllib.error.HTTPError as error:
        content, status, found = error.read(), error.code, error.headers
    is_json = found.get_content_type() == "application/json"
    return status, json.loads(content) if is_json else content.decode(), found


def form(**files: bytes) -> dict[str, Any]:
    """Arguments of ``ask`` that send files as a browser does."""
    parts = [
        f'--limit\r\nContent-Disposition: form-data; name="image"; filename="{name}.png"\r\n\r\n'.encode() + content
        for name, content in files.items()
    ]
    return {"body": b"\r\n".join([*parts, b"--limit--\r\n"]), "Content_Type": "multipart/form-data; boundary=limit"}


def png(seed: int, *size: int) -> tuple[np.ndarray, bytes]:
    pixels = np.random.default_rng(seed).integers(0, 256, (*(size or (40, 50)), 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return pixels, content.getvalue()


def test_the_answer_is_what_the_model_says() -> None:
    images = {f"part {i}": png(i, 30 + 10 * i, 50) for i in range(3)}
    predictor = Predictor(Model())
    with serving(part=Model()) as address:
        pixels, content = images["part 0"]
        status, alone, _ = ask(f"{address}/predict", content)
        assert status == 200
        status, found, _ = ask(
            f"{address}/predict?map=true&overlay=true",
            **form(**{name: content for name, (_, content) in images.items()}),
        )
    assert status == 200
    assert found["model"] == "part"
    assert (found["threshold"], found["pixel_threshold"]) == (0.5, 0.7)
    assert [image["name"] for image in found["images"]] == [f"{name}.png" for name in images]
    for (pixels, _), image in zip(images.values(), found["images"], strict=True):
        expected = predictor.predict(pixels)
        assert image["anomaly_score"] == pytest.approx(expected.anomaly_score)
        assert image["label"] == expected.label
        assert (image["height"], image["width"]) == pixels.shape[:2]
        assert [tuple(region.values()) for region in image["regions"]] == expected.regions
        with Image.open(io.BytesIO(base64.b64decode(image["map"]))) as tiff:
            np.testing.assert_array_equal(np.asarray(tiff), expected.anomaly_map)
        with Image.open(io.BytesIO(base64.b64decode(image["overlay"]))) as picture:
            np.testing.assert_array_equal(np.asarray(picture), overlay(pixels, expected, 0.7))
    without = {key: value for key, value in found["images"][0].items() if key not in ("map", "overlay")}
    assert alone["images"] == [without | {"name": "image"}]


def test_a_broken_file_does_not_take_the_others_along() -> None:
    with serving(part=Model()) as address:
        status, found, _ = ask(f"{address}/predict", **form(a=png(0)[1], b=b"nothing", c=png(1)[1][:-40]))
        assert status == 200
        good, *broken = found["images"]
        assert "error" not in good
        assert [image["error"].partition(":")[0] for image in broken] == [
            f"cannot read image {name}.png" for name in "bc"
        ]
        status, found, _ = ask(f"{address}/predict", b"nothing")
        words = "cannot read image image: its content is not that of a PNG, JPEG, BMP, TIFF or WebP file"
        assert (status, found["detail"]) == (422, words)
        for kind in ("WEBP", "TIFF", "BMP", "JPEG", "MPO"):
            content = io.BytesIO()
            Image.new("RGB", (8, 8)).save(content, format=kind)
            assert ask(f"{address}/predict", content.getvalue())[0] == 200, kind


def test_the_format_is_one_of_pictures_and_the_size_is_limited() -> None:
    ghost = io.BytesIO()
    Image.new("RGB", (8, 8)).save(ghost, format="EPS")  # Pillow starts a program to read it
    with serving(part=Model()) as address:
        status, found, _ = ask(f"{address}/predict", ghost.getvalue())
        assert (status, found["detail"].partition(":")[0]) == (422, "cannot read image image")
        status, found, _ = ask(f"{address}/predict", png(0, 10, 10001)[1])
        assert status == 422
        assert "has 10001 x 10 pixels, and at most 100,000 are taken" in found["detail"]
        large = bytes(1_000_001)
        assert ask(f"{address}/predict", large)[0] == 413
        assert ask(f"{address}/predict", iter([large]))[0] == 413  # sent in chunks, without a length
        assert ask(f"{address}/predict", **form(a=large))[0] == 413
        many = {f"a{i}": png(i, 4, 4)[1] for i in range(17)}
        assert ask(f"{address}/predict", **form(**many))[0] == 413
        for wrong in ({"body": b""}, form()):
            status, found, _ = ask(f"{address}/predict", **wrong)
            assert status == 422
            assert "expected" in found["detail"]


def test_models_are_asked_for_by_name() -> None:
    content = png(0)[1]
    with serving(lid=Model(), cap=Model()) as address:
        assert ask(f"{address}/predict?model=cap", content)[1]["model"] == "cap"
        status, found, _ = ask(f"{address}/predict", content)
        assert (status, found["detail"]) == (404, "name a model: ?model= takes lid, cap")
        assert ask(f"{address}/predict?model=box", content)[1]["detail"].startswith("no model 'box'")
        assert [model["name"] for model in ask(f"{address}/models")[1]] == ["lid", "cap"]


def test_a_token_guards_all_but_health_and_page() -> None:
    content = png(0)[1]
    with serving(token="secret", part=Model()) as address:
        for path in ("models", "metrics"):
            assert ask(f"{address}/{path}")[0] == 401
            assert ask(f"{address}/{path}", Authorization="Bearer secret")[0] == 200
        for wrong in ({}, {"Authorization": "Bearer other"}, {"Authorization": "secret"}):
            assert ask(f"{address}/predict", content, **wrong)[0] == 401
        assert ask(f"{address}/predict", content, Authorization="Bearer secret")[0] == 200
        assert ask(f"{address}/health")[:2] == (200, {"status": "ok"})
        assert ask(f"{address}/")[0] == 200


def test_images_of_several_requests_go_through_the_model_together() -> None:
    key, content = threading.Event(), png(0)[1]
    model = Model(key)
    with serving(part=model) as address, ThreadPoolExecutor(12) as clients:
        first = clients.submit(ask, f"{address}/predict", content)
        assert model.busy.wait(20)
        others = [clients.submit(ask, f"{address}/predict", content) for _ in range(7)]
        wait_for(address, "squad_lit_waiting_images", 8)
        threading.Event().wait(0.5)  # they are decoded meanwhile
        key.set()
        assert {future.result()[0] for future in [first, *others]} == {200}
        assert figures(address)["squad_lit_batch_images_count", "part"] == len(model.batches) - 1
    assert model.batches[:2] == [1, 1]  # that of the start, and the first one
    assert sum(model.batches) == 9
    assert max(model.batches) > 1  # what waited meanwhile; all 7, unless this machine is very slow


def test_an_image_that_the_model_cannot_judge_fails_alone() -> None:
    class Fragile(Model):
        def run(self, image: np.ndarray) -> Output:
            found = super().run(image)
            return found._replace(anomaly_score=np.where(image.any((1, 2, 3)), found.anomaly_score, np.nan))

    black = io.BytesIO()
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(black, format="PNG")
    with serving(part=Fragile()) as address:
        _, found, _ = ask(f"{address}/predict", **form(a=png(0)[1], b=black.getvalue(), c=png(1)[1]))
    assert ["error" in image for image in found["images"]] == [False, True, False]
    assert "the score of an image is nan" in found["images"][1]["error"]


def test_what_takes_too_long_or_comes_too_much_is_refused() -> None:
    key, content = threading.Event(), png(0)[1]
    model = Model(key)
    with serving(LIMITS._replace(seconds=0.5, images=4), part=model) as address, ThreadPoolExecutor(8) as clients:
        first = clients.submit(ask, f"{address}/predict", content)
        assert model.busy.wait(20)
        status, found, headers = ask(f"{address}/predict", **form(**{f"a{i}": content for i in range(4)}))
        assert (status, headers["Retry-After"]) == (503, "1")
        assert found["detail"] in ("too many images are waiting (1): try again", "it took longer than 0.5 seconds")
        status, found, _ = first.result()
        assert (status, found["detail"]) == (503, "it took longer than 0.5 seconds")
        key.set()
        assert ask(f"{address}/predict", content)[0] == 200
        assert figures(address)["squad_lit_waiting_images", ""] == 0


def figures(address: str) -> dict[tuple[str, str], float]:
    """The figures by name and label, read by Prometheus' own parser."""
    return {
        (sample.name, "/".join(value for name, value in sorted(sample.labels.items()) if name != "le")): sample.value
        for family in text_string_to_metric_families(ask(f"{address}/metrics")[1])
        for sample in family.samples
    }


def wait_for(address: str, name: str, value: float) -> None:
    for _ in range(1000):
        if figures(address)[name, ""] == value:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"{name} did not reach {value}")


def test_prometheus_sees_what_was_judged() -> None:
    bright, dark = io.BytesIO(), io.BytesIO()
    for file, value in ((bright, 255), (dark, 10)):
        Image.new("L", (8, 8), value).save(file, format="PNG")
    with serving(part=Model()) as address:
        assert figures(address)["squad_lit_images_total", "1/part"] == 0
        for content in (bright.getvalue(), dark.getvalue(), dark.getvalue(), b"nothing"):
            ask(f"{address}/predict", content)
        found = figures(address)
    assert found["squad_lit_images_total", "1/part"] == 1
    assert found["squad_lit_images_total", "0/part"] == 2
    assert found["squad_lit_unreadable_images_total", "part"] == 1
    assert found["squad_lit_requests_total", "200"] == 3
    assert found["squad_lit_requests_total", "422"] == 1
    assert found["squad_lit_request_seconds_count", ""] == 4
    assert found["squad_lit_threshold", "part"] == 0.5
    assert found["squad_lit_score_ratio_sum", "part"] == pytest.approx((1 + 2 * 10 / 255) / 0.5)
    assert found["process_resident_memory_bytes", ""] > 2**20


def test_a_drift_is_told_to_prometheus_and_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    model = Model()
    model.metadata["normal_scores"] = [0.4 + i / 1000 for i in range(100)]
    bright = io.BytesIO()
    Image.new("L", (8, 8), 255).save(bright, format="PNG")
    monitor = DriftMonitor(model.metadata["normal_scores"], Predictor(model).threshold.value)
    needed = next(count for count in range(1, 100) if monitor.feed(1.0))
    with serving(part=model) as address:
        for count in range(1, needed + 3):
            assert ask(f"{address}/predict", bright.getvalue())[0] == 200
            assert figures(address)["squad_lit_drift", "part"] == (count >= needed)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("drift of part: ")]
    assert len(told) == 1
    assert f"{needed} of the last {needed} images score above the threshold" in told[0]


def test_the_page_needs_nothing_from_elsewhere() -> None:
    with serving(part=Model()) as address:
        _, page, headers = ask(f"{address}/")
        assert ask(f"{address}/openapi.json")[1]["paths"]["/predict"]["post"]["requestBody"]["required"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert not re.findall(r"(?:src|href)=|https?://|@import", page)
    assert Path(squad_lit.deploy.serve.service.__file__).with_name("service.html").read_text(encoding="utf-8") == page
