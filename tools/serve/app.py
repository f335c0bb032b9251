"""The HTTP application: enroll, query, list and forget."""

import hmac
from dataclasses import asdict
from io import BytesIO
from typing import Annotated, Any

import numpy as np
from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.tools.gallery.snapshot import query
from ember_reid.tools.gallery.store import Entry, Gallery, check_name
from ember_reid.tools.serve.limits import Limits, TokenBucket, TooManyRequests, Turnstile
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse
from PIL import Image, UnidentifiedImageError

from ember_reid import __version__

DESCRIPTION = """
Known identities and their images. An image is the body of a request, with a Content-Type such as
`image/jpeg`. Every answer about a change is sent after the change is on disk.
"""
IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class Service:
    """What the requests share.

    Args:
        threshold: the largest cosine distance of a known identity; None: every image is matched.
    """

    def __init__(
        self, gallery: Gallery, embedder: Embedder, *, threshold: float | None, limits: Limits
    ) -> None:
        self.gallery, self.embedder = gallery, embedder
        self.threshold, self.limits = threshold, limits
        self.turnstile = Turnstile(limits.max_waiting)

    def embed(self, content: bytes) -> np.ndarray:
        """The embedding [D] of an encoded image.

        Raises:
            HTTPException: it is not an image, or it is too large.
            TooManyRequests: too many requests wait for the network.
        """
        try:
            with Image.open(BytesIO(content)) as image:
                if image.width * image.height > self.limits.max_pixels:
                    raise HTTPException(
                        413, f"the image has more than {self.limits.max_pixels} pixels"
                    )
                prepared = self.embedder.prepare(image)
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
            raise HTTPException(422, "the body is not a readable image") from error
        except Image.DecompressionBombError as error:
            raise HTTPException(413, "the image has too many pixels") from error
        with self.turnstile.turn():
            return self.embedder.embed_batch(prepared[None])[0].numpy()

    def enroll(self, name: str, content: bytes, camera: str, source: str) -> dict[str, object]:
        """Add an image to an identity."""
        entry = Entry(self.embed(content), camera, source)
        return {"identity": name, "added": self.gallery.add(name, [entry])}

    def answer(self, content: bytes, top: int) -> dict[str, object]:
        """The identities near an image."""
        embedding = self.embed(content)
        found = query(self.gallery.snapshot(), embedding, top=top, threshold=self.threshold)
        return {"threshold": self.threshold, **asdict(found)}


async def read_image(request: Request) -> bytes:
    """The body of a request, if it is announced as an image and is not too large.

    A browser sends this content type to another site only if that site agrees, so no page can
    enroll images at a server on the same machine.
    """
    limit = request.app.state.service.limits.max_bytes
    if not request.headers.get("content-type", "").startswith("image/"):
        raise HTTPException(415, "send the image as the body, with a Content-Type of image/...")
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > limit:
            raise HTTPException(413, f"the image has more than {limit} bytes")
    return bytes(content)


def valid_name(name: str) -> str:
    """The name of an identity from the path."""
    try:
        return check_name(name)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error


Body = Annotated[bytes, Depends(read_image)]
Name = Annotated[str, Depends(valid_name)]


def create_app(service: Service, *, token: str = "", hosts: tuple[str, ...] = ("*",)) -> FastAPI:
    """The application.

    Args:
        token: required as `Authorization: Bearer TOKEN`, unless it is empty.
        hosts: accepted Host headers. A page on another site cannot reach a local server through a
            name of its own.
    """
    bucket = TokenBucket(service.limits.rate, service.limits.burst)

    def check_request(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if token and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "a token is required", {"WWW-Authenticate": "Bearer"})
        bucket.take(request.client.host if request.client else "")

    app = FastAPI(
        title="ember-reid gallery",
        version=__version__,
        description=DESCRIPTION,
        dependencies=[Depends(check_request)],
    )
    app.state.service = service
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.add_exception_handler(TooManyRequests, _refuse)
    app.add_exception_handler(OSError, _report_full_disk)
    _add_routes(app, service)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    def health() -> dict[str, object]:
        """The network and the size of the gallery."""
        content = service.gallery.snapshot()
        return {
            "fingerprint": service.gallery.metadata.fingerprint,
            "threshold": service.threshold,
            "identities": len(content.names),
            "images": len(content.owners),
        }

    @app.get("/identities")
    def identities() -> list[str]:
        """The names of all identities."""
        return list(service.gallery.snapshot().names)

    @app.post("/identities/{name}/images", status_code=201, openapi_extra=IMAGE_BODY)
    async def enroll(
        name: Name,
        image: Body,
        camera: Annotated[str, Query(max_length=200)] = "",
        source: Annotated[str, Query(max_length=1000)] = "",
    ) -> dict[str, object]:
        """Add an image to an identity, which is created if it is new.

        `added` is 0 if the identity already has this image.
        """
        return await run_in_threadpool(service.enroll, name, image, camera, source)

    @app.post("/query", openapi_extra=IMAGE_BODY)
    async def answer(
        image: Body, top: Annotated[int, Query(ge=1, le=100)] = 5
    ) -> dict[str, object]:
        """The nearest identities; `known` is false if none is within the threshold."""
        return await run_in_threadpool(service.answer, image, top)

    @app.delete("/identities/{name}")
    def forget(name: Name) -> dict[str, int]:
        """Delete an identity with all its embeddings."""
        try:
            return {"deleted": service.gallery.forget([name])}
        except ValueError as error:
            raise HTTPException(404, str(error)) from error


def _refuse(_request: Request, error: Exception) -> JSONResponse:
    seconds = error.seconds if isinstance(error, TooManyRequests) else 1.0
    return JSONResponse(
        {"detail": str(error)}, status_code=429, headers={"Retry-After": str(int(seconds) + 1)}
    )


def _report_full_disk(_request: Request, error: Exception) -> JSONResponse:
    """The disk is full, or another process holds the gallery for too long."""
    return JSONResponse({"detail": str(error)}, status_code=507)
