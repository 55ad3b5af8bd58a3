"""An agent's configuration file: its sections put together from those of each kind."""

import ipaddress
from pathlib import Path
from typing import Any, Literal

import msgspec

from analytics import knownlimits
from analytics.config import AnalyticsConfig, ChartConfig, PartConfig, validate
from analytics.curves.config import CurveConfig
from analytics.health.config import HealthConfig, HealthKeys, SensorRule
from analytics.trend_config import TrendConfig
from edge.actions.config import BoundAction
from edge.actions.wiring import bind_actions
from edge.loops import refuse_loops
from edge.oee import OeeConfig
from edge.oee import errors as oee_errors
from edge.sources import known_kinds as known_sources
from edge.sources import load_kind as load_source
from edge.sources.base import SourceContext
from fieldlab.config import Document, Duration, Size
from fieldlab.errors import ConfigError, RefusedError
from fieldlab.model import SignalKind
from ingest.stores import known_kinds as known_stores
from ingest.stores import load_kind as load_store
from ingest.stores.base import StoreContext

SHORTEST_TOKEN = 16  # characters: nobody guesses it over the network


class AgentSection(msgspec.Struct, frozen=True, kw_only=True):
    """`[agent]`.

    Attributes:
        name: the tag `agent`; the MQTT client id is name and index of the source.
        data: journal, embedded store, certificates; mode 0700.
        http: address and port of /healthz, /readyz, /metrics and the board; empty for none.
        http_token_file: the token that a request to `http` must bring; needed unless `http` is a loopback address.
        reload: `auto`: a changed file is applied as soon as it rests, but for what needs a person's SIGHUP; `signal`:
            SIGHUP only.
        lateness: how long a reading may be late and still be judged.
        false_alarms: designed false alarms a shift and machine, shared by its charts without a rate of their own.
        shift: how long a shift is.
        max_series: the cap on signals.
        journal_max: the cap on the journal's size.
        when_full: default of every store: `hold` the sources, or `drop-oldest` of what that store has not yet got.
        retention: default of every store that has one.
    """

    name: str
    data: Path = Path("var")
    http: str = "127.0.0.1:8321"
    http_token_file: Path | None = None
    reload: Literal["auto", "signal"] = "auto"
    lateness: Duration = Duration(2)
    false_alarms: float | None = None
    shift: Duration = Duration(8 * 3600)
    max_series: int = 100_000
    journal_max: Size = Size(2_000_000_000)
    when_full: Literal["hold", "drop-oldest"] = "hold"
    retention: Duration | None = None


class PlaceSection(msgspec.Struct, frozen=True, kw_only=True):
    """`[place]`: defaults of the ISA-95 path."""

    site: str = "site"
    area: str = "area"
    line: str = "line"


class SignalRule(msgspec.Struct, frozen=True, kw_only=True):
    """`[[signal]]`: what is known about signals, whatever source they come from.

    Attributes:
        match: glob over machine/signal.
        unit: as printed.
        kind: gauge, counter, state or text.
        scale: value = raw * scale + offset.
        offset: in the unit of the value.
        map: number → text, for states.
        lsl: lower specification limit, in `unit`.
        usl: upper specification limit, in `unit`.
        target: nominal value, in `unit`.
        uncertainty: expanded uncertainty (k = 2) of a measured value, in `unit`: verdicts then keep a guard band.
        health: the checks of the sensor to make, of `analytics.health.config.CHECKS`; absent: all; [] for none.
        range: lowest and highest value that the sensor can give.
        stuck: equal readings in a row that are no chance; absent: learned.
        silent: how long without a reading is too long; absent: learned where readings come regularly.
        step: largest change from a reading to the next that the quantity can make; absent: learned.
        twin: another sensor of the same quantity, `machine/signal`.
        twin_tolerance: how far the mean difference to the twin may move; absent: learned.
    """

    match: str
    unit: str | None = None
    kind: SignalKind | None = None
    scale: float = 1.0
    offset: float = 0.0
    map: dict[str, str] = {}
    lsl: float | None = None
    usl: float | None = None
    target: float | None = None
    uncertainty: float | None = None
    health: tuple[str, ...] | None = None
    range: tuple[float, float] | None = None
    stuck: int = 0
    silent: str = ""
    step: float | None = None
    twin: str = ""
    twin_tolerance: float | None = None

    @property
    def sensor(self) -> SensorRule:
        """What it says of the sensor's health."""
        return SensorRule(**{key: getattr(self, key) for key in SensorRule.__struct_fields__})


class Configured(msgspec.Struct, frozen=True, kw_only=True):
    """One `[[source]]` or `[[store]]`: its kind, its own struct, and where it stands in the file."""

    kind: str
    config: Any
    key: str


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A whole configuration file, checked."""

    file: Path
    agent: AgentSection
    place: PlaceSection
    stores: tuple[Configured, ...]
    sources: tuple[Configured, ...]
    rules: tuple[SignalRule, ...]
    charts: tuple[ChartConfig, ...]
    parts: tuple[PartConfig, ...]
    curves: tuple[CurveConfig, ...] = ()
    actions: tuple[BoundAction, ...] = ()
    health: HealthKeys = HealthKeys()
    trends: tuple[TrendConfig, ...] = ()
    oees: tuple[OeeConfig, ...] = ()

    def source_context(self, index: int) -> SourceContext:
        """What the source at `index` is told."""
        return SourceContext(
            name=f"{self.sources[index].kind}-{index}",
            agent=self.agent.name,
            index=index,
            site=self.place.site,
            area=self.place.area,
            line=self.place.line,
            data=self.agent.data,
        )

    def store_context(self, index: int) -> StoreContext:
        """What the store at `index` is told; a second store of one kind gets a number."""
        kind = self.stores[index].kind
        same = sum(s.kind == kind for s in self.stores[:index])
        name = getattr(self.stores[index].config, "name", "") or kind
        name = name if name != kind or same == 0 else f"{kind}-{same}"
        place = f"{self.place.site}/{self.place.area}/{self.place.line}"
        return StoreContext(name=name, agent=self.agent.name, data=self.agent.data, place=place)

    def analytics(self) -> AnalyticsConfig:
        """The part that the analytics judge by; what is known of signals is added by the agent."""
        return AnalyticsConfig(
            charts=self.charts,
            parts=self.parts,
            curves=self.curves,
            lateness=float(self.agent.lateness),
            false_alarms=self.agent.false_alarms,
            shift=f"{float(self.agent.shift):f}s",
            trends=self.trends,
            health=HealthConfig(**msgspec.structs.asdict(self.health), rules=tuple(r.sensor for r in self.rules)),
        )


_INHERITED = frozenset({"when_full", "retention"})


class _Top(msgspec.Struct, frozen=True, kw_only=True):
    agent: dict[str, Any]
    place: dict[str, Any] = {}
    store: tuple[dict[str, Any], ...] = ()
    source: tuple[dict[str, Any], ...] = ()
    signal: tuple[dict[str, Any], ...] = ()
    chart: tuple[dict[str, Any], ...] = ()
    part: tuple[dict[str, Any], ...] = ()
    curve: tuple[dict[str, Any], ...] = ()
    action: tuple[dict[str, Any], ...] = ()
    health: dict[str, Any] = {}
    trend: tuple[dict[str, Any], ...] = ()
    oee: tuple[dict[str, Any], ...] = ()


def load(path: Path, *, agent: str = "") -> AgentConfig:
    """Read and check an agent's configuration file.

    Args:
        path: the file.
        agent: the agent's name if the file has no `[agent]`, which it otherwise must have.

    Raises:
        ConfigError: naming file, line and key.
    """
    document = Document(path)
    data = {"agent": {"name": agent}} | document.data if agent else document.data
    top = document.bind(_Top, data, "")
    section = document.bind(AgentSection, top.agent, "agent")
    if not section.data.is_absolute():
        section = msgspec.structs.replace(section, data=path.parent / section.data)
    if not section.name or not all(c.isalnum() or c in "-_." for c in section.name):
        raise document.error("may hold letters, digits, - _ and . only", "agent.name")
    if section.http and section.http_token_file is None and not _is_loopback(section.http):
        words = (
            f"{section.http!r} can be reached by others: write a token of at least {SHORTEST_TOKEN} characters to a"
            " file and name it in http_token_file; or listen on 127.0.0.1 only"
        )
        raise document.error(words, "agent.http")
    if not top.source:
        raise document.error("there is no [[source]]: nothing to read", "source")
    sources = _configured(document, top.source, "source", {})
    config = AgentConfig(
        file=path,
        agent=section,
        place=document.bind(PlaceSection, top.place, "place"),
        stores=_configured(document, top.store or ({"kind": "embedded"},), "store", top.agent),
        sources=sources,
        rules=tuple(document.bind(SignalRule, t, f"signal[{i}]") for i, t in enumerate(top.signal)),
        charts=tuple(_chart(document, t, f"chart[{i}]") for i, t in enumerate(top.chart)),
        parts=tuple(document.bind(PartConfig, t, f"part[{i}]") for i, t in enumerate(top.part)),
        curves=tuple(document.bind(CurveConfig, t, f"curve[{i}]") for i, t in enumerate(top.curve)),
        health=document.bind(HealthKeys, top.health, "health"),
        oees=tuple(document.bind(OeeConfig, t, f"oee[{i}]") for i, t in enumerate(top.oee)),
        trends=tuple(document.bind(TrendConfig, t, f"trend[{i}]") for i, t in enumerate(top.trend)),
        actions=bind_actions(document, top.action, [(s.kind, s.config) for s in sources]),
    )
    for key, message in [*validate(config.analytics()), *oee_errors(config.oees)]:
        raise document.error(message, key)
    _refuse_worker_with_judgement(document, config)
    refuse_loops(document, section.name, config.stores, config.sources)
    return config


def _is_loopback(address: str) -> bool:
    """Whether nobody but this computer reaches `host:port`."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _chart(document: Document, table: dict[str, Any], key: str) -> ChartConfig:
    """One [[chart]], with what its `limits_file` says."""
    chart = document.bind(ChartConfig, table, key)
    if not chart.limits_file:
        return chart
    file = document.path.parent / chart.limits_file
    try:
        known = knownlimits.of_toml(file.read_bytes())
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else str(e)
        raise document.error(f"{file}: {why}", f"{key}.limits_file") from None
    return msgspec.structs.replace(chart, known=known)


def _configured(
    document: Document, tables: tuple[dict[str, Any], ...], section: str, defaults: dict[str, Any]
) -> tuple[Configured, ...]:
    found = []
    for i, table in enumerate(tables):
        key = f"{section}[{i}]"
        kinds = known_sources() if section == "source" else known_stores()
        kind = table.get("kind")
        if kind not in kinds:
            what = "needs a kind" if kind is None else f"unknown kind {kind!r}"
            raise document.error(f"{what}; known kinds: {', '.join(kinds)}", f"{key}.kind")
        struct = _struct(document, section, kind, key)
        inherited = {k: v for k, v in defaults.items() if k in _INHERITED & set(struct.__struct_fields__)}
        found.append(Configured(kind=kind, config=document.bind(struct, inherited | table, key), key=key))
    return tuple(found)


def _struct(document: Document, section: str, kind: str, key: str) -> type[msgspec.Struct]:
    try:
        return load_source(kind).config if section == "source" else load_store(kind).config
    except ModuleNotFoundError as e:
        raise document.error(f"{kind!r} needs {e.name}; in Fieldlab's folder: pip install '.[{kind}]'", key) from e
    except RefusedError as e:  # a plug-in that is none
        raise document.error(str(e), f"{key}.kind") from e


def _refuse_worker_with_judgement(document: Document, config: AgentConfig) -> None:
    """A shared subscription spreads one machine's readings: such an agent only stores."""
    checks = config.health.signals or config.trends or any(rule.sensor.said for rule in config.rules)
    if not config.charts and not config.parts and not config.curves and not checks:
        return
    for source in config.sources:
        for topic in getattr(source.config, "topics", ()):
            if topic.startswith("$share/"):
                raise document.error(
                    f"{topic!r} is a shared subscription, which spreads one machine's readings over several agents:"
                    " remove [[chart]], [[part]] and checks of sensors, or subscribe without $share",
                    f"{source.key}.topics",
                )


def in_file(config: AgentConfig, error: ConfigError, source: Configured) -> ConfigError:
    """An error about a source's table, which knows its key only, with file and line."""
    document = Document(config.file)
    words = str(error) if error.file else error.message  # an error about another file, such as a token's, names it
    return document.error(words, f"{source.key}.{error.key}" if error.key else source.key)
