"""A small HTTP service of trained models: predictions, health, figures for Prometheus, and a page to drop images on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from numpy.typing import NDArray
from starlette.datastructures import UploadFile
from starlette.types import Message

from squad_lit.deploy.output_folder import overlay
from squad_lit.deploy.serve.batcher import Batcher
from squad_lit.deploy.serve.figures import Figures
from squad_lit.image.file import read_sent, to_uint8
from squad_lit.system.file import to_png, to_tiff
from squad_lit.system.package import version

if TYPE_CHECKING:
    from squad_lit.deploy.predictor import Predictor, Result

_PAGE = Path(__file__).with_name("service.html")
# The page may load nothing but itself: it also runs where there is no internet.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
_SECONDS_TO_RETRY = "1"
# Of the largest body: what is read of a larger one before the connection is closed.
_DRAINED = 4


class Limits(NamedTuple):
    """What a client may ask for.

    Args:
        megabytes: Largest body of a request, in MB of 1,000,000 bytes.
        megapixels: Largest image, in 1,000,000 pixels.
        seconds: Longest time of a request, from its first byte to its answer.
        images: Most images of all requests that are waiting or being judged.
    """

    megabytes: float
    megapixels: float
    seconds: float
    images: int


class Service:
    """The models and what they share.

    Args:
        models: The models by name; the first one judges where a request names none and there is one alone.
        limits: What a client may ask for.
    """

    def __init__(self, models: Mapping[str, Predictor], limits: Limits) -> None:
        self.figures = Figures(models)
        self.batchers = {name: Batcher(model, partial(self.figures.together, name)) for name, model in models.items()}
        self._limits = limits
        self._threads = ThreadPoolExecutor(os.cpu_count())
        self._waiting = 0
        self._tasks: list[asyncio.Task[None]] = []
        # Decoded images that are in memory at a time: those in the model, and as many for its next batch.
        self._slots = {name: asyncio.Semaphore(2 * model.runtime.batch) for name, model in models.items()}

    @contextlib.asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """Judge an image of noise with each model, so that the first request is as fast as the others, and start."""
        for batcher in self.batchers.values():
            size = batcher.predictor.runtime.metadata["image_size"]
            batcher.predictor.predict(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
        self._tasks = [asyncio.create_task(batcher.run()) for batcher in self.batchers.values()]
        yield
        for task in self._tasks:
            task.cancel()

    @property
    def is_alive(self) -> bool:
        """Whether each model still judges what it is given."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def predict(self, request: Request, model: str | None, wanted: Mapping[str, bool]) -> dict[str, Any]:
        """The answer to a request; see :func:`make_app`."""
        name = self._name(model)
        try:
            async with asyncio.timeout(self._limits.seconds), self._files(request) as files:
                with self._admitted(len(files)):
                    found = await asyncio.gather(*(self._judge(name, *file, wanted) for file in files))
        except TimeoutError:
            raise HTTPException(503, f"it took longer than {self._limits.seconds:g} seconds", _retry()) from None
        if all("error" in one for one in found):
            raise HTTPException(422, found[0]["error"])
        predictor = self.batchers[name].predictor
        thresholds = {"threshold": predictor.threshold.value, "pixel_threshold": predictor.pixel_threshold.value}
        return {"model": name, **thresholds, "images": found}

    def _name(self, model: str | None) -> str:
        if model is None and len(self.batchers) == 1:
            return next(iter(self.batchers))
        if model not in self.batchers:
            wrong = "name a model" if model is None else f"no model {model!r}"
            raise HTTPException(404, f"{wrong}: ?model= takes {', '.join(self.batchers)}")
        return str(model)

    @contextlib.contextmanager
    def _admitted(self, images: int) -> Iterator[None]:
        """Refuse images that would wait too long, instead of piling them up."""
        most = self._limits.images
        if images > most:
            raise HTTPException(413, f"expected at most {most} images per request, got {images}")
        if self._waiting + images > most:
            raise HTTPException(503, f"too many images are waiting ({self._waiting}): try again", _retry())
        self._waiting += images
        self.figures.waiting.set(self._waiting)
        try:
            yield
        finally:
            self._waiting -= images
            self.figures.waiting.set(self._waiting)

    @contextlib.asynccontextmanager
    async def _files(self, request: Request) -> AsyncIterator[list[tuple[str, bytes | UploadFile]]]:
        """Name and content of each file: those of a form, or the body as a whole."""
        limited = Request(request.scope, _limited(request, round(1e6 * self._limits.megabytes)))
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            content = await limited.body()
            if not content:
                raise HTTPException(422, "expected an image as the body, or images in a form (multipart/form-data)")
            yield [("image", content)]
            return
        async with limited.form(max_files=self._limits.images + 1, max_fields=self._limits.images) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            if not files:
                raise HTTPException(422, "the form has no file; expected one or more images")
            yield [(file.filename or f"image {number}", file) for number, file in enumerate(files)]

    async def _judge(
        self, model: str, name: str, file: bytes | UploadFile, wanted: Mapping[str, bool]
    ) -> dict[str, Any]:
        """What the answer says of an image."""
        batcher = self.batchers[model]
        intensity_range = batcher.predictor.runtime.metadata["intensity_range"]
        in_thread = partial(asyncio.get_running_loop().run_in_executor, self._threads)
        async with self._slots[model]:
            try:
                content = file if isinstance(file, bytes) else await file.read()
                most = round(1e6 * self._limits.megapixels)
                pixels = await in_thread(partial(read_sent, content, name, intensity_range, most_pixels=most))
                result = await batcher.judge(pixels)
            except (OSError, ValueError) as error:
                self.figures.unreadable(model)
                return {"name": name, "error": str(error)}
            self.figures.judged(model, result)
            return {"name": name} | await in_thread(_describe, batcher.predictor, pixels, result, wanted)


def make_app(models: Mapping[str, Predictor], limits: Limits, token: str | None = None) -> FastAPI:
    """The application, for any ASGI server.

    ``POST /predict`` takes an image as its body, or one or many as the files of a form. It answers with JSON: the name
    of the model, its thresholds, and per image name, size, score, label and regions, or an error. ``map=true`` adds the
    map as a TIFF of 32-bit floats, and ``overlay=true`` the overlay as a PNG, both in base64. ``model=NAME`` chooses a
    model.

    Args:
        models: The models by name, at least one.
        limits: What a client may ask for. What exceeds a size is refused with 413, what comes too much or takes too
            long with 503.
        token: What clients have to send as ``Authorization: Bearer TOKEN``, except for the page and ``/health``.
    """
    service = Service(models, limits)
    app = FastAPI(title="squad_lit", version=version(), docs_url=None, redoc_url=None, lifespan=service.running)

    def check_token(authorization: Annotated[str, Header()] = "") -> None:
        if token is not None and not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "expected the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    guarded = [Depends(check_token)]

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(_PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": _POLICY})

    @app.get("/health")
    async def health() -> JSONResponse:
        return JSONResponse(
            {"status": "ok"} if service.is_alive else {"status": "failed"}, 200 if service.is_alive else 503
        )

    @app.get("/models", dependencies=guarded)
    async def describe_models() -> list[dict[str, Any]]:
        return [_about(name, batcher.predictor) for name, batcher in service.batchers.items()]

    @app.get("/metrics", dependencies=guarded)
    async def metrics() -> Response:
        return Response(service.figures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.post("/predict", dependencies=guarded, openapi_extra=_BODY)
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(description="name of the model")] = None,
        map: Annotated[bool, Query(description="add the anomaly map")] = False,
        overlay: Annotated[bool, Query(description="add the overlay")] = False,
    ) -> JSONResponse:
        started, status = time.perf_counter(), 500
        try:
            found = await service.predict(request, model, {"map": map, "overlay": overlay})
            status = 200
            return JSONResponse(found)
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            service.figures.requests.labels(str(status)).inc()
            service.figures.seconds.observe(time.perf_counter() - started)

    return app


_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {"schema": {"type": "object", "properties": {"image": _FILES}}},
        },
    }
}


def _limited(request: Request, most: int) -> Any:
    """The messages of a request's body, up to a number of bytes."""
    left = most

    async def receive() -> Message:
        nonlocal left
        message = await request.receive()
        left -= len(message.get("body", b""))
        if left < 0:
            while message.get("more_body") and left > -_DRAINED * most:  # who still sends does not read an answer
                message = await request.receive()
                left -= len(message.get("body", b""))
            raise HTTPException(413, f"expected a body of at most {most / 1e6:g} MB", {"Connection": "close"})
        return message

    return receive


def _describe(predictor: Predictor, pixels: NDArray[Any], result: Result, wanted: Mapping[str, bool]) -> dict[str, Any]:
    height, width = pixels.shape[:2]
    keys = ("row", "column", "height", "width", "area")
    found: dict[str, Any] = {
        "width": width,
        "height": height,
        "anomaly_score": result.anomaly_score,
        "label": result.label,
        "regions": [dict(zip(keys, region, strict=True)) for region in result.regions],
    }
    if wanted["map"]:
        found["map"] = base64.b64encode(to_tiff(result.anomaly_map)).decode()
    if wanted["overlay"]:
        picture = overlay(to_uint8(pixels), result, predictor.pixel_threshold.value)
        found["overlay"] = base64.b64encode(to_png(picture)).decode()
    return found


def _about(name: str, predictor: Predictor) -> dict[str, Any]:
    about = predictor.runtime.metadata
    return {
        "name": name,
        "categories": about["categories"],
        "image_size": about["image_size"],
        "device": predictor.runtime.device,
        "threshold": predictor.threshold.value,
        "false_alarm_rate": predictor.threshold.false_alarm_rate,
        "normal_images": predictor.threshold.images,
    }


def _retry() -> dict[str, str]:
    return {"Retry-After": _SECONDS_TO_RETRY}
