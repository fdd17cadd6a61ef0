"""The application: all routes, the documents about them, and what becomes of errors."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from pipeline.errors import TransientError
from pipeline.services.server.access import Doorkeeper
from pipeline.services.server.desk import Desk
from pipeline.services.server.gate import PREFIX, refusal
from pipeline.services.server.live import routes as live_routes
from pipeline.services.server.live.streams import Streams
from pipeline.services.server.pages import Cursors
from pipeline.services.server.problems import (
    CONTENT_TYPE,
    MEANINGS,
    TITLES,
    Fault,
    ProblemError,
)
from pipeline.services.server.routes import (
    clusters,
    commands,
    frames,
    items,
    login,
    model,
    page,
    time,
    vectors,
)
from pipeline.services.server.routes.asking import PROBLEMS, read_your_writes
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import get_logger

DESCRIPTION: Final = (
    "What a stream of embeddings is clustered into, now: clusters, items, changes, drift, lineage. "
    "Read-only, but for commands, which the reclusterer carries out."
)


def make_api(
    desk: Desk, cursors: Cursors, health: Health, streams: Streams, doorkeeper: Doorkeeper
) -> FastAPI:
    """Routes and documents, without the gate."""
    app = FastAPI(
        title="Eddy",
        description=DESCRIPTION,
        version=program_version(),
        openapi_url=None,  # ours shows the names of the wire, and no error that never comes
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    api = APIRouter(prefix=PREFIX, responses=PROBLEMS, dependencies=[read_your_writes(desk)])
    # before /clusters/{cluster_id}: merge is no cluster
    api.include_router(commands.router(desk, cursors))
    api.include_router(clusters.router(desk, cursors))
    api.include_router(items.router(desk, cursors))
    api.include_router(vectors.router(desk))
    api.include_router(time.router(desk, cursors))
    api.include_router(model.router(desk))
    api.include_router(frames.router(desk))
    api.include_router(login.session_router(desk.policy.auth))
    app.include_router(api)
    app.include_router(live_routes.router(streams), prefix=PREFIX)
    app.include_router(login.router(doorkeeper))
    app.include_router(page.router())
    _add_documents(app, health)
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(TransientError, _on_transient)
    app.add_exception_handler(Exception, _on_defect)
    return app


def openapi(app: FastAPI) -> dict[str, Any]:
    """The description of all routes, with the names and errors that the wire has."""
    told = app.openapi()
    for schema in told["components"]["schemas"].values():
        renamed = {name.rstrip("_"): one for name, one in schema.get("properties", {}).items()}
        if renamed:
            schema["properties"] = renamed
            schema["required"] = [name.rstrip("_") for name in schema.get("required", [])]
    for path in told["paths"].values():
        for operation in path.values():
            for answer in operation["responses"].values():
                content = answer.get("content", {})
                shape = content.get("application/json", {}).get("schema", {})
                if shape.get("$ref", "").endswith("/Problem"):
                    answer["content"] = {CONTENT_TYPE: {"schema": shape}}
    for name in ("HTTPValidationError", "ValidationError"):
        told["components"]["schemas"].pop(name, None)
    return told


def _add_documents(app: FastAPI, health: Health) -> None:
    @app.get("/openapi.json", include_in_schema=False)
    def show_openapi() -> JSONResponse:
        return JSONResponse(openapi(app))

    @app.get("/problems/{name}", include_in_schema=False)
    def show_problem(name: str) -> JSONResponse:
        if name not in TITLES:
            raise ProblemError("not-found", "there is no such problem")
        status, title = TITLES[name]
        return JSONResponse(
            {"type": name, "status": status, "title": title, "meaning": MEANINGS[name]}
        )

    @app.get("/health", include_in_schema=False)
    def show_health() -> JSONResponse:
        checks = [*health.ready()]
        ok = all(check.ok for check in checks)
        body = {"ok": ok, "checks": [check._asdict() for check in checks]}
        return JSONResponse(body, 200 if ok else 503)


def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return refusal(request, error)


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [
        Fault("/" + "/".join(_escaped(part) for part in one["loc"]), str(one["msg"]))
        for one in error.errors()[:20]
    ]
    detail = "; ".join(f"{fault.pointer}: {fault.reason}" for fault in faults[:3])
    return refusal(request, ProblemError("invalid-request", detail, errors=faults))


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    name = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "invalid-request")
    answer = refusal(request, ProblemError(name, TITLES[name][1], status=error.status_code))
    for header, value in (error.headers or {}).items():
        answer.headers[header] = value
    return answer


def _on_transient(request: Request, error: Exception) -> Response:
    problem = ProblemError("unavailable", "the broker does not answer", retry_after_s=5)
    return refusal(request, problem)


def _on_defect(request: Request, error: Exception) -> Response:
    """Nothing of the exception leaves the house; the log has it."""
    get_logger().error(
        "request_failed",
        request_id=getattr(request.state, "request_id", ""),
        code=type(error).__name__,
        problem=str(error),
    )
    return refusal(request, ProblemError("internal", "a defect; the log tells more"))


def _escaped(part: object) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def program_version() -> str:
    """Of the package; 0 in a source tree."""
    try:
        return version("eddy-stream")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0"
