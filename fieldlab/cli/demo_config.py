"""The configuration of an agent for simulated machines, from what a simulator says it has."""

import json
from typing import Any

_ALONE = ("octoprint", "moonraker", "bambu")  # a source for each machine
_TOPICS = {
    "octoprint": "octoPrint/{name}",
    "moonraker": "{name}",
    "bambu": "device/{name}",
    "vda5050": "uagv/v2/+/{{machine}}",
    "sparkplug": "spBv1.0/+/+/+/{{machine}}",
}


def configuration(ready: dict[str, Any], *, port: int) -> str:
    """An agent's configuration for the machines that a simulator said it has."""
    machines = ready["machines"]
    site, area, line, _ = machines[0]["place"].split("/")
    lines = [
        "[agent]",
        'name = "demo"',
        'data = "data"',
        f"http = {_text(f'127.0.0.1:{port}' if port else '')}",
        "",
        "[place]",
        f"site = {_text(site)}",
        f"area = {_text(area)}",
        f"line = {_text(line)}",
    ]
    lines += _opcua_source([m for m in machines if m["protocol"] == "opcua"], ready["opcua"])
    lines += _mqtt_sources([m for m in machines if m["protocol"] == "mqtt"], ready)
    for machine in machines:
        for s in machine["signals"]:
            if s["per_part"] == "iid":
                lines += _charts(f"{machine['name']}/{s['name']}")
        genealogy = [s["name"] for s in machine["signals"] if s["kind"] == "text" and s["name"] != machine["part_id"]]
        lines += [
            "",
            "[[part]]",
            f"machine = {_text(machine['name'])}",
            f"{machine['part_key']} = {_text(machine['part_id'])}",
            f"genealogy = {json.dumps(genealogy)}",
        ]
    return "\n".join(lines) + "\n"


def _opcua_source(machines: list[dict[str, Any]], url: str) -> list[str]:
    """One source for all machines behind one server: one session, one subscription."""
    if not machines:
        return []
    lines = ["", "[[source]]", 'kind = "opcua"', f"machine = {_text(machines[0]['name'])}", f"url = {_text(url)}"]
    for machine in machines:
        for s in machine["signals"]:
            lines += ["[[source.signal]]", f"machine = {_text(machine['name'])}", f"name = {_text(s['name'])}"]
            lines += [f"node = {_text(s['node'])}", *_known(s)]
    return lines


def _mqtt_sources(machines: list[dict[str, Any]], ready: dict[str, Any]) -> list[str]:
    """A source for each dialect; one for each machine where the dialect wants that."""
    lines: list[str] = []
    groups: dict[str, list[dict[str, Any]]] = {}
    for machine in machines:
        alone = machine["dialect"] in _ALONE
        groups.setdefault(f"{machine['dialect']} {machine['name'] if alone else ''}", []).append(machine)
    for group in groups.values():
        lines += _mqtt_source(group, ready)
    return lines


def _mqtt_source(machines: list[dict[str, Any]], ready: dict[str, Any]) -> list[str]:
    protocol = "3.1.1" if ready["broker"] == "amqtt" else "5"
    dialect, name = machines[0]["dialect"], machines[0]["name"]
    lines = ["", "[[source]]", 'kind = "mqtt"', f"url = {_text(ready['mqtt'])}"]
    lines += [f"username = {_text(ready['user'])}", f"password_file = {_text(ready['password_file'])}"]
    lines += [f"protocol = {_text(protocol)}"]
    if dialect == "json":
        lines.append(f"topics = {json.dumps(['fieldlab/' + machine['place'] + '/+' for machine in machines])}")
    else:
        lines.append(f"format = {_text(dialect)}")
    if dialect in _TOPICS:
        lines.append(f"topic = {_text(_TOPICS[dialect].format(name=name))}")
    if dialect in _ALONE:
        lines.append(f"machine = {_text(name)}")
    for machine in machines:
        for s in machine["signals"]:
            lines += ["", "[[signal]]", f"match = {_text(machine['name'] + '/' + s['name'])}", *_known(s)]
    return lines


def _known(s: dict[str, Any]) -> list[str]:
    lines = [f"unit = {_text(s['unit'])}", f"kind = {_text(s['kind'])}"]
    return lines + [f"{key} = {float(s[key])}" for key in ("lsl", "usl", "target") if s[key] is not None]


def _charts(signal_path: str) -> list[str]:
    """An individuals and an EWMA chart, each designed for one false alarm in 20,000 parts: the hall has 14 charts."""
    lines = []
    for kind in ("individuals", "ewma"):
        name = f"{signal_path.replace('/', ' ')} {kind}"
        lines += [
            "",
            "[[chart]]",
            f"name = {_text(name)}",
            f"kind = {_text(kind)}",
            f"signals = [{_text(signal_path)}]",
        ]
        lines += ["baseline = 30", "arl0 = 20000"]
    return lines


def _text(value: str) -> str:
    """A TOML basic string; JSON's escapes are TOML's."""
    return json.dumps(value, ensure_ascii=False)
