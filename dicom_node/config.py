"""The configuration: one TOML file, typed, closed to unknown keys.

`load()` reads the file, lets `DICOM_NODE_<TABLE>__<KEY>` environment variables override
plain tables, and refuses what it does not understand with the key's name. Every key's
meaning, unit, default and consequence stands under it; config/node.example.toml says the same.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dicom_node.domain.identity import AETitle
from dicom_node.errors import ConfigurationError, InvalidValue

PROJECT = Path(__file__).resolve().parent.parent
"""The folder that holds `pipelines/` and `models/` beside the package."""

Port = Annotated[int, Field(ge=1, le=65535)]


def _ae_title(value: str) -> str:
    try:
        return AETitle(value)
    except InvalidValue as error:
        raise ValueError(str(error)) from error


AE = Annotated[str, AfterValidator(_ae_title)]


def _fingerprint(value: str) -> str:
    """As `openssl x509 -fingerprint -sha256` prints it, or without colons; kept in lower case without."""
    digits = value.removeprefix("sha256 Fingerprint=").replace(":", "").lower()
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise ValueError("is not a SHA-256 fingerprint: 64 hexadecimal digits, colons allowed")
    return digits


Fingerprint = Annotated[str, AfterValidator(_fingerprint)]


class Table(BaseModel):
    """One table of the file: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


AnyTable = TypeVar("AnyTable", bound=Table)


class Node(Table):
    ae_title: AE = "DICOMNODE"
    """The AE title of this node: what peers call it, and what it calls itself when it delivers."""
    data_dir: Path = Path("var")
    """Where images, results and the SQLite database live: one file system. Relative to this file."""
    pipelines_dir: Path = PROJECT / "pipelines"
    """Folder of pipelines; each file or folder in it is one."""
    models_dir: Path = PROJECT / "models"
    """Folder of MONAI bundles."""
    codes: Path | None = None
    """TOML file with a site's own codes, by the names of `dicom_node/domain/codes.toml`."""


class Receive(Table):
    host: str = "127.0.0.1"
    """Address to listen on. Loopback by default: a node that nobody configured serves nobody."""
    port: Port = 11112
    """TCP port of the C-STORE and C-ECHO service."""
    stable_after_s: float = Field(30.0, ge=0.0, le=86400.0)
    """Seconds without a new image after which a study counts as complete although its completeness could
    not be shown. The last resort; a study seen to be complete does not wait for it."""
    settle_s: float = Field(3.0, ge=0.0, le=3600.0)
    """Seconds without a new image that a study seen to be complete is still given."""
    max_associations: int = Field(64, ge=1, le=500)
    """Associations at a time, TLS or not; a further one is rejected (transient, local limit exceeded)."""
    network_timeout_s: float = Field(60.0, gt=0.0, le=3600.0)
    """Seconds a silent association is kept, and the longest time one PDU may take to arrive."""
    max_pdu_bytes: int = Field(131072, ge=4096, le=1 << 20)
    """Largest PDU this node asks its peers to send."""
    max_instance_mb: int = Field(8192, ge=1)
    """Largest data set taken, MB; a larger one is refused with 0xA700."""
    reserve_mb: int = Field(1024, ge=0)
    """Free disk space, MB, that receiving never uses; below it objects are refused with 0xA700."""
    unwanted: Literal["refuse", "store"] = "refuse"
    """What happens to an object that no pipeline can use (anything but MR images, slides,
    photographs and reports): `refuse` answers 0x0122 and keeps nothing, `store` keeps it with the study."""
    deflate: bool = False
    """Whether Deflated Explicit VR Little Endian is taken. A small deflated file may be a huge one: what
    one unfolds to is bounded, and past the bound it counts as unreadable."""


class Tls(Table):
    port: int = Field(0, ge=0, le=65535)
    """TCP port of the C-STORE and C-ECHO service by TLS (PS3.15 B.12; 2762 is the registered one). 0: none.
    It listens on receive.host. A peer must show a certificate there."""
    certificate: Path | None = None
    """PEM file with this node's certificate, then any intermediate ones."""
    private_key: Path | None = None
    """PEM file with its private key, readable by the node's user alone."""
    trusted: Path | None = None
    """PEM file of the certificate authorities (or self-signed certificates) that peers' certificates are
    checked against."""
    revoked: Path | None = None
    """PEM file of certificate revocation lists; a revoked certificate is refused."""


class Http(Table):
    host: str = "127.0.0.1"
    """Address of STOW-RS and of the health and metrics pages."""
    port: Port = 8042
    """Their TCP port."""
    tls: bool = False
    """Whether they are served by TLS, with tls.certificate; a client's certificate is then asked for, and
    shows which peer it is."""


class Store(Table):
    database: str = "sqlite"
    """`sqlite` keeps the ledger in data_dir; else a SQLAlchemy URL of a PostgreSQL database
    (`postgresql+psycopg://...`), with the password in `password_file`."""
    password_file: Path | None = None
    """File whose first line is the database password; it never stands in this file."""


class Infer(Table):
    engine: Literal["local"] = "local"
    """Where jobs are computed: `local` worker processes on this machine."""
    workers: int = Field(1, ge=1, le=64)
    """Worker processes; each holds its own copy of the models (about 1 GB)."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """`auto` takes a GPU where torch sees one, else the CPU."""
    runtime: Literal["auto", "torch", "openvino"] = "auto"
    """What runs the networks on microscope images on a CPU; `auto` and `openvino` take OpenVINO where it says
    what torch says (checked when a model is loaded), else torch. Others run on torch."""
    precision: Literal["auto", "f32", "bf16"] = "auto"
    """In what numbers it does; `auto` takes bfloat16 where the processor has it and that check is passed."""
    threads: int = Field(0, ge=0, le=256)
    """Threads per worker for the networks; 0 divides the machine's cores among the workers."""
    job_time_limit_s: float = Field(900.0, gt=0.0)
    """A job that runs longer is stopped and tried again; after max_attempts it is FAILED."""
    memory_limit_mb: int = Field(4096, ge=512)
    """A job whose process grows past this is stopped and tried again."""
    lease_s: float = Field(30.0, ge=2.0)
    """Seconds after which a worker that was not heard of loses its job to another."""
    max_attempts: int = Field(3, ge=1, le=20)
    """Attempts before a job is FAILED."""
    retry_after_s: float = Field(5.0, ge=0.0)
    """Seconds before the second attempt; doubled for each further one."""


class Deliver(Table):
    timeout_s: float = Field(30.0, gt=0.0)
    """Seconds a destination may take to connect, to associate, or to answer one message."""
    retry_after_s: float = Field(10.0, gt=0.0)
    """Seconds before the second attempt; doubled for each further one, with jitter."""
    retry_at_most_s: float = Field(1800.0, gt=0.0)
    """Longest pause between two attempts."""
    give_up_after_days: float = Field(14.0, gt=0.0)
    """Days after which an undelivered object is FAILED: an outage of a week, and what waited before it, are
    over long before. It is kept, and `retry` sends it again."""


Form = Literal["sr", "seg", "pm", "ann", "sc", "gsps", "kos", "wsi"]
"""The forms of results, as `peer.takes` names them."""


class Peer(Table):
    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")
    """The name used in routes, logs and tables."""
    ae_title: AE
    """The AE title it calls itself."""
    host: str
    """Its address. Without certificates it must call from here when it sends (names are resolved when the
    node starts)."""
    port: Port = 104
    """Its port, for what the node sends to it."""
    may_send: bool = True
    """Whether it may send images to this node. An AE title is a label, no proof of identity."""
    certificates: tuple[Fingerprint, ...] = ()
    """SHA-256 fingerprints of the certificates it may show. With one or more it gets in by TLS only, and
    its AE title only with one of them."""
    tls: bool = False
    """Whether the node speaks TLS to it: presents tls.certificate, checks its own against tls.trusted."""
    token_file: Path | None = None
    """File whose first line is its bearer token for STOW-RS; at least 32 characters."""
    max_associations: int = Field(16, ge=1, le=500)
    """Associations it may have at a time."""
    max_instances_per_minute: int = Field(0, ge=0)
    """Objects it may send in a minute; a further one is answered 0xA700. 0: as many as come."""
    max_gb_per_hour: float = Field(0.0, ge=0.0)
    """GB it may send in an hour; past them objects are answered 0xA700. 0: as many as come."""
    retrieve: Literal["no", "get", "move"] = "no"
    """How images are retrieved from it: `get` (C-GET), `move` (C-MOVE to this node's AE title, which it must
    know with host and port), `no`."""

    url: str | None = Field(None, pattern=r'^https?://[!"$->A-~]+$')
    """Base address of its DICOMweb service: results go there by STOW-RS, not by C-STORE, with the token of
    `token_file`. Over https its certificate must be one of `certificates` where there are any, else carry the
    name in `url`; and `tls.trusted` must know it, or the machine where nothing is given there."""
    commitment: bool = False
    """Whether it is asked to vouch for what it took (storage commitment, PS3.4 Annex J). Its reports come on
    the same association, or on one that it opens: then it must know this node's host and port."""
    confirm: Literal["no", "query"] = "no"
    """Whether it is asked for each object that it took: `query` looks for it (C-FIND, Study Root; QIDO-RS
    with `url`), and sends again what it does not show. It must answer queries of this node."""
    takes: Literal["ask"] | Annotated[tuple[Form, ...], Field(min_length=1)] = "ask"
    """Which result objects it takes: `ask` asks it, a day at the latest after the last time; a list says it
    without asking, and what is not in it is never sent there."""


class Route(Table):
    pipeline: str
    """Name of the pipeline."""
    from_: tuple[str, ...] = Field(alias="from", min_length=1)
    """Peers whose studies it looks at."""
    to: tuple[str, ...] = Field(min_length=1)
    """Peers that get the results."""
    outputs: (
        Literal["auto"]
        | tuple[Literal["sr", "seg", "pm", "sc", "roi", "gsps", "kos", "reject", "ann", "fseg", "wsi"], ...]
    ) = "auto"
    """Result objects to send; `auto` sends of what there is all that the destination takes."""
    intended_use: Literal["enforce", "warn"] = "enforce"
    """`enforce` answers a study outside the model's intended use with "AI not performed, because ...";
    `warn` runs and says so in every result."""
    fetch: Literal["no", "count", "missing"] = "no"
    """Whether the sender is asked (C-FIND) how many images a study has, once it has been quiet: `count` takes
    the answer into the judgement of completeness, `missing` retrieves what is not here as well."""


CodeText = Annotated[str, Field(max_length=64, pattern=r"^[^\s\^][^\^]{0,63}\^[^\s\^][^\^]{0,15}$")]
"""A coded concept (PS3.3 8.8) in short: `value^scheme`."""


class Worklist(Table):
    peer: str
    """Peer that manages the worklist (Unified Procedure Steps, PS3.4 Annex CC). Asked by DICOM; by UPS-RS
    (PS3.18 11) where it has a `url`."""
    pipeline: str
    """Pipeline that its work items ask for. The route with this pipeline and this peer in `from` says who
    gets the results."""
    workitem: CodeText
    """Scheduled Workitem Code (0040,4018) of the items to perform: `value^scheme`."""
    station: Literal[""] | CodeText = ""
    """Scheduled Station Name Code (0040,4025) they must have, and by which this node names itself; empty:
    items for any station."""
    fetch_from: str = ""
    """Peer that their images are retrieved from where an item names none that is listed; empty: they are
    waited for."""
    poll_s: float = Field(30.0, ge=1.0, le=86400.0)
    """Seconds between two looks at the worklist."""
    at_a_time: int = Field(4, ge=1, le=1000)
    """Items this node has claimed and not ended, at most; the others are left to other performers."""
    wait_h: float = Field(24.0, gt=0.0, le=8760.0)
    """Hours that the images of a claimed item are waited for; then it is ended as CANCELED."""


class Audit(Table):
    folder: Path | None = None
    """Folder of the audit trail (PS3.15 A.5, hash-chained), which names patients. Left out: `audit` in
    data_dir."""


class Config(Table):
    node: Node = Node()
    receive: Receive = Receive()
    tls: Tls = Tls()
    http: Http = Http()
    audit: Audit = Audit()
    store: Store = Store()
    infer: Infer = Infer()
    deliver: Deliver = Deliver()
    peer: tuple[Peer, ...] = ()
    route: tuple[Route, ...] = ()
    worklist: tuple[Worklist, ...] = ()

    @model_validator(mode="after")
    def _names_agree(self) -> Config:
        names = [peer.name for peer in self.peer]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two peers are named {twice[0]!r}")
        for route in self.route:
            for name in (*route.from_, *route.to):
                if name not in names:
                    raise ValueError(f"route for {route.pipeline!r} names peer {name!r}, which is not listed")
        self._check_tls()
        self._check_urls()
        self._check_worklists()
        asked = [(route.pipeline, name) for route in self.route for name in route.from_]
        for pipeline, name in asked:
            if asked.count((pipeline, name)) > 1:  # one study, one job: which route's results would be sent?
                raise ValueError(f"two routes bring studies of peer {name!r} to {pipeline!r}; make them one")
        return self

    def _check_tls(self) -> None:
        wants = [f"peer {peer.name!r}" for peer in self.peer if peer.tls or peer.certificates]
        wants += ["tls.port"] * bool(self.tls.port) + ["http.tls"] * self.http.tls
        absent = [key for key in ("certificate", "private_key", "trusted") if getattr(self.tls, key) is None]
        if wants and absent:
            raise ValueError(f"{wants[0]} needs tls.{absent[0]}")
        shown = [digest for peer in self.peer for digest in peer.certificates]
        if len(shown) != len(set(shown)):
            raise ValueError("one certificate is listed for two peers, or twice")

    def _check_urls(self) -> None:
        for peer in self.peer:
            if peer.url and peer.commitment:
                raise ValueError(
                    f"peer {peer.name!r}: commitment is asked by DICOM; with `url` there is none"
                )
            where = urlsplit(peer.url or "")
            if peer.url and (not where.hostname or where.port == 0):  # `port` raises where it is none
                raise ValueError(f"peer {peer.name!r}: `url` names no host and port")
            safe = where.scheme == "https" or where.hostname in ("127.0.0.1", "::1", "localhost")
            if peer.url and peer.token_file and not safe:
                raise ValueError(f"peer {peer.name!r}: its token would travel in clear; `url` must be https")

    def _check_worklists(self) -> None:
        peers = {peer.name: peer for peer in self.peer}
        for at, one in enumerate(self.worklist):
            where = f"worklist of peer {one.peer!r}"
            if one.peer not in peers:
                raise ValueError(f"{where}: this peer is not listed")
            if one.fetch_from and (one.fetch_from not in peers or peers[one.fetch_from].retrieve == "no"):
                raise ValueError(f"{where}: fetch_from names {one.fetch_from!r}, no peer with `retrieve`")
            if not any(one.pipeline == route.pipeline and one.peer in route.from_ for route in self.route):
                raise ValueError(
                    f"{where}: no route says what becomes of its results; add {one.peer!r} to `from` of a "
                    f"route to {one.pipeline!r}"
                )
            if any((one.peer, one.workitem) == (two.peer, two.workitem) for two in self.worklist[:at]):
                raise ValueError(f"{where}: two worklists with workitem {one.workitem!r}; make them one")

    @property
    def audit_folder(self) -> Path:
        return self.audit.folder or self.node.data_dir / "audit"

    @cached_property
    def peers(self) -> Mapping[str, Peer]:
        return {peer.name: peer for peer in self.peer}


def load(path: Path | None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read and check a configuration file; None means all defaults (plus the environment).

    Raises ConfigurationError that names the key.
    """
    try:
        raw: dict[str, Any] = {} if path is None else tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read configuration {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from error
    _override(raw, environ)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigurationError(_sentence(error)) from error
    return _resolved(config, path.resolve().parent if path else Path.cwd())


def _override(raw: dict[str, Any], environ: Mapping[str, str]) -> None:
    for variable, value in sorted(environ.items()):
        prefix, _, rest = variable.partition("DICOM_NODE_")
        table, separator, key = rest.lower().partition("__")
        if prefix or not separator:
            continue
        if table not in {name for name in Config.model_fields if name not in ("peer", "route", "worklist")}:
            raise ConfigurationError(f"environment variable {variable} names no table of the configuration")
        raw.setdefault(table, {})[key] = value


def _sentence(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        key = ".".join(str(part) for part in problem["loc"])
        what = (
            "unknown key"
            if problem["type"] == "extra_forbidden"
            else problem["msg"].removeprefix("Value error, ")
        )
        lines.append(f"{key}: {what}" if key else what)
    return "configuration: " + "; ".join(lines)


def _resolved(config: Config, base: Path) -> Config:
    """Every relative path made one below `base`."""
    return config.model_copy(
        update={
            "node": _with_paths(config.node, base),
            "tls": _with_paths(config.tls, base),
            "audit": _with_paths(config.audit, base),
            "store": _with_paths(config.store, base),
            "peer": tuple(_with_paths(peer, base) for peer in config.peer),
        }
    )


def _with_paths(table: AnyTable, base: Path) -> AnyTable:
    values = {name: getattr(table, name) for name in type(table).model_fields}
    paths = {name: (base / value).resolve() for name, value in values.items() if isinstance(value, Path)}
    return table.model_copy(update=paths)
