"""An agent's configuration file."""

from pathlib import Path

import pytest

from edge.config import load
from fieldlab.errors import ConfigError

WHOLE = """
[agent]
name = "line-3"
data = "var/line-3"
http = "127.0.0.1:8321"

[place]
site = "drachten"
area = "shavers"
line = "3"

[[store]]
kind = "influxdb"
url = "http://127.0.0.1:8086"
api = "v2"
org = "fieldlab"
bucket = "telemetry"
token_file = "influx-token"

[[source]]
kind = "opcua"
machine = "cnc-07"
url = "opc.tcp://127.0.0.1:4840"
security = "best"
interval = "100ms"
[[source.signal]]
name = "spindle_load"
node = "nsu=urn:fieldlab:sim;s=cnc-07.spindle_load"
unit = "%"
lsl = 0.0
usl = 95.0

[[source]]
kind = "mqtt"
url = "mqtt://127.0.0.1:1883"
format = "json"
topics = ["fieldlab/+/+/+/+/+"]
topic = "fieldlab/{site}/{area}/{line}/{machine}/{signal}"
value = "value"
time = "ts"
session = "persistent"
protocol = "5"
client_id = "line-3-0"

[[signal]]
match = "printer-*/nozzle"
unit = "°C"
scale = 0.1
target = 210.0

[[chart]]
name = "diameter"
kind = "ewma"
signals = ["cnc-07/diameter"]
per = "part"
feature = "mean"
subgroup = 1
baseline = 100

[[part]]
machine = "cnc-07"
id = "part_id"
genealogy = ["tool", "material_lot"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "fieldlab.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_design_s_example_is_read(tmp_path: Path) -> None:
    config = load(write(tmp_path, WHOLE))
    assert config.agent.data == tmp_path / "var/line-3"
    assert [s.kind for s in config.stores] == ["influxdb"]
    assert [s.kind for s in config.sources] == ["opcua", "mqtt"]
    assert config.stores[0].config.token_file == tmp_path / "influx-token"
    assert config.sources[0].config.signal[0].usl == 95.0
    assert config.source_context(1).name == "mqtt-1"
    assert config.charts[0].kind == "ewma"
    assert config.parts[0].genealogy == ("tool", "material_lot")


def test_no_store_means_the_embedded_one(tmp_path: Path) -> None:
    text = '[agent]\nname = "a"\n[[source]]\nkind = "mqtt"\nurl = "mqtt://127.0.0.1"\ntopics = ["fieldlab/#"]\n'
    assert [s.kind for s in load(write(tmp_path, text)).stores] == ["embedded"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('security = "best"', 'securty = "best"', "did you mean `security`?"),
        ('unit = "%"', 'unit = "%"\nusll = 3.0', "did you mean `usl`?"),
        ("usl = 95.0", 'usl = "95"', "Expected `float | null`, got `str`"),
        ('interval = "100ms"', 'interval = "100"', "write it as 100ms"),
        ('kind = "influxdb"', 'kind = "influx"', "known kinds: embedded, influxdb, mqtt"),
        ('kind = "opcua"', 'kind = "opc"', "known kinds: mqtt, opcua"),
        ('kind = "ewma"', 'kind = "ewmma"', "ewma"),
        ("[place]", "[plaze]", "did you mean `place`?"),
        ('topics = ["fieldlab/+/+/+/+/+"]', 'topics = ["$share/g/fieldlab/#"]', "shared subscription"),
        ('name = "line-3"', 'name = "line/3"', "letters, digits"),
    ],
)
def test_errors_name_file_line_and_what_to_do(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = WHOLE.replace(old, new, 1)
    path = write(tmp_path, text)
    line = text[: text.index(new) + len(new)].count("\n") + 1
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.line == line
    assert f"{path}:{line}: " in str(caught.value)
    assert words in str(caught.value)


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \[\[source\]\]"):
        load(write(tmp_path, '[agent]\nname = "a"\n'))


def test_limits_of_a_file_are_part_of_the_chart(tmp_path: Path) -> None:
    file, limits = tmp_path / "fieldlab.toml", tmp_path / "diameter.toml"
    file.write_text(
        '[agent]\nname = "a"\n[[source]]\nkind = "mqtt"\nurl = "mqtt://127.0.0.1"\n'
        '[[chart]]\nsignals = ["cnc-07/diameter"]\nper = "reading"\nlimits_file = "diameter.toml"\n'
    )
    limits.write_text('[[limits]]\nsignal = "cnc-07/diameter"\ncenter = 25.0\nsigma = 0.004\nn = 250\n')
    (known,) = load(file).charts[0].known
    assert (known.center, known.sigma, known.n) == (25.0, 0.004, 250)
    limits.write_text('[[limits]]\nsignal = "cnc-07/diameter"\ncenter = 25.0\n')
    with pytest.raises(ConfigError, match=r"fieldlab.toml:9: chart\[0\].limits_file: .*diameter.toml: .*sigma"):
        load(file)
