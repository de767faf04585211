"""The API's documentation as one page, made from `/openapi.json`; the page fetches nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse

router = APIRouter(include_in_schema=False)


@router.get("/")
def root() -> RedirectResponse:
    """Redirect a browser to the documentation."""
    return RedirectResponse("docs")


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    """Every path with its description and its request."""
    return HTMLResponse(_page(request.app.openapi()))


def _page(api: Mapping[str, Any]) -> str:
    title, about = escape(api["info"]["title"]), escape(api["info"]["description"])
    rows = [
        f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation.get('description', ''))}</p>"
        f"<p>{_sent(operation)}</p>"
        for path, operations in api["paths"].items()
        for method, operation in operations.items()
    ]
    schemas = "Bodies and answers are described in <a href='openapi.json'>openapi.json</a>."
    return f"<!doctype html><html lang='en'><title>{title}</title><h1>{title}</h1><p>{about}</p><p>{schemas}</p>" + (
        "".join(rows) + "</html>"
    )


def _sent(operation: Mapping[str, Any]) -> str:
    """The names of a request's parameters and body."""
    parts = [f"{where['name']} ({where['in']})" for where in operation.get("parameters", ())]
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        names = [one["$ref"] for one in (schema, *schema.get("anyOf", ())) if "$ref" in one]
        parts += [f"{name.rsplit('/', 1)[-1]} (body)" for name in names]
    if any("session" in way for way in operation.get("security", ())):
        parts.append("Editlab-Session (header)")
    return "Takes: " + escape(", ".join(parts)) + "." if parts else "Takes nothing."
