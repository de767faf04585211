"""All settings of a lab, its backend and its page: one typed class, read from EDITLAB_ variables.

An argument (a command's option) takes precedence over the variable, and the variable over the default. A page's kernel
needs only two settings and reads them without this module: `editlab.remote.client.backend_of_environment`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from platformdirs import user_data_path
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from editlab.lab.database import SCHEMES
from editlab.lab.limits import Limits

PREFIX = "EDITLAB_"
OF_LAB = (
    *("model", "device", "dtype", "allow_download", "facts", "glue", "text", "seed", "tasks"),
    *("methods", "scan", "store", "limits"),
)

Texts = Annotated[tuple[str, ...], NoDecode]  # in a variable: separated by commas, or a JSON list


class PageSettings(BaseModel):
    """How the page is served to browsers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8866, ge=1, le=65535)
    base_url: str = Field(default="/", pattern=r"^/(.*/)?$")  # the page's path behind another server
    token: SecretStr | None = None  # that each visitor enters once
    preheat: int = Field(default=0, ge=0)  # kernels kept ready for the next visitors
    most: int = Field(default=60, ge=1)  # pages open at once; each has a kernel of about 100 MB


class Settings(BaseSettings):
    """Raises ValueError with one sentence that names the setting and says what it may be.

    `limits` and `page` are set one by one: EDITLAB_LIMITS_SESSIONS, EDITLAB_PAGE_PORT and so on.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )

    # which lab: the arguments of `Lab.load`
    model: str = "auto"
    device: str = "auto"
    dtype: str = "float32"
    allow_download: bool = False
    facts: str | None = None  # a file of facts, or "hub"; None: the project's own
    glue: str | None = None  # a folder of GLUE files, or "hub"; None: the project's own tasks only
    text: str | None = None  # text for perplexity: "wikitext" or a .txt file; None: the project's own
    seed: int = Field(0, ge=0)
    tasks: Texts = ()  # files of the user's own tasks
    methods: Texts = ()  # files with methods of the user's own
    scan: str | None = None  # a folder of `editlab scan`, or its scan.parquet, to show
    store: Path | str = Field(  # a file, or the URL of a PostgreSQL database, in which there may be a password
        default_factory=lambda: user_data_path("editlab") / "sessions.sqlite", repr=False
    )
    limits: Limits = Limits()

    # how the backend serves it
    host: str = "127.0.0.1"
    port: int = Field(8867, ge=0, le=65535)  # 0: any free one
    token: SecretStr | None = None  # that every caller must send
    token_file: Path | None = None  # a file to read `token` from
    allowed_hosts: Texts = ()  # further host names of the backend
    allowed_origins: Texts = ()  # web pages that may call the backend from a browser: "https://lab.example.org"
    workers: int | None = Field(default=None, ge=1)  # models, each in a process of its own; None: one, in the backend
    ray: str | None = None  # the Ray cluster that the workers are on; None: one of this machine's own
    max_request_bytes: int = Field(1_000_000, ge=1_000)
    requests_per_minute: int = Field(1_200, ge=1)  # per session, and per address for all other requests
    sessions_per_hour: int = Field(400, ge=1)  # new ones, copies among them, per address

    # where the page finds it
    backend: str | None = None  # URL of a backend; None: one of its own
    page: PageSettings = PageSettings()

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise ValueError(_sentence(error)) from None
        except SettingsError as error:  # a variable that is not valid JSON
            raise ValueError(str(error)) from None

    @field_validator("tasks", "methods", "allowed_hosts", "allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.startswith("["):
            return json.loads(value)
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("store", mode="before")
    @classmethod
    def _at_home(cls, value: Path | str) -> Path | str:
        return str(value) if str(value).startswith(SCHEMES) else Path(value).expanduser()

    @model_validator(mode="before")
    @classmethod
    def _read_token(cls, values: dict[str, Any]) -> dict[str, Any]:
        file = values.get("token_file")
        if file and not values.get("token"):
            try:
                token = Path(file).expanduser().read_text(encoding="utf-8-sig").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"the token cannot be read from {file}: {error}") from None
            if not token:
                raise ValueError(f"{file} holds no token")
            values = {**values, "token": token}
        return values

    @model_validator(mode="after")
    def _check_store(self) -> Self:
        if self.has_workers and not str(self.store).startswith(SCHEMES):
            raise ValueError(
                "workers share their sessions, which a file cannot be: set the store to a PostgreSQL database, "
                "postgresql://USER@HOST/DATABASE"
            )
        return self

    @property
    def has_workers(self) -> bool:
        """Whether models are in processes of their own."""
        return self.ray is not None or (self.workers or 1) > 1

    @field_serializer("token", when_used="json")
    def _reveal(self, token: SecretStr | None) -> str | None:
        return None if token is None else token.get_secret_value()

    def of_lab(self) -> dict[str, Any]:
        """The arguments of `Lab.load`."""
        return {name: getattr(self, name) for name in OF_LAB}

    def to_environment(self) -> dict[str, str]:
        """The variables that give another process these settings; the token is among them."""
        values = self.model_dump(mode="json", exclude={"token_file", "limits", "page"}, exclude_none=True)
        values |= {f"limits_{name}": value for name, value in asdict(self.limits).items()}
        values |= {f"page_{name}": value for name, value in self.page.model_dump(exclude_none=True).items()}
        return {f"{PREFIX}{name}".upper(): _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return value if isinstance(value, str) else json.dumps(value)


def _sentence(error: ValidationError) -> str:
    """A sentence about the first error."""
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    where = "_".join(str(part) for part in first["loc"])
    return f"{where} ({PREFIX}{where.upper()}): {message[0].lower()}{message[1:]}" if where else message
