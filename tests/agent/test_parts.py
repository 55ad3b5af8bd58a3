"""Parts in a running agent: a late measurement revises a verdict, also after a kill; the report asks the agent."""

import json
from collections.abc import Callable
from typing import Any

from fieldlab.cli.common import ask_agent

START = 1_763_900_000_000_000_000
SECOND = 1_000_000_000
CONFIG = """
[[signal]]
match = "cmm-01/bore"
unit = "mm"
lsl = 5.0
usl = 6.0
[[part]]
machine = "cnc-07"
id = "part_id"
genealogy = ["tool"]
[[part]]
machine = "cmm-01"
part = "measured_id"
measure = ["bore"]
[[curve]]
name = "stroke"
machine = "cnc-07"
y = "force"
baseline = 0
[[curve.rule]]
kind = "highest"
max = 50.0
"""


def says(machine: str, signal: str, time: int, value: object) -> tuple[str, str]:
    return f"fieldlab/drachten/shavers/3/{machine}/{signal}", json.dumps({"value": value, "ts": time})


def test_a_late_measurement_and_the_report(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto()
    process = agent(mqtt_source(broker) + CONFIG).start()
    publisher = publish(broker)
    stream = [says("cnc-07", "tool", START - SECOND, "T1")]
    for i in range(6):
        at = START + i * 10 * SECOND
        stream.append(says("cnc-07", "part_id", at, f"P{i}"))
        if i == 3:
            stream.append(says("cnc-07", "tool", at + SECOND // 2, "T2"))
        stream += [
            says("cnc-07", "force", at + k * SECOND, 80.0 if (i, k) == (3, 5) else 20.0 + k) for k in range(1, 9)
        ]
    publisher.send(stream)

    def verdicts(part: str) -> dict[int, str]:
        return {v["revision"]: v["verdict"] for v in ask_agent(process.data, f"/report/parts?part={part}")["verdicts"]}

    wait_until(lambda: verdicts("P4"), 20.0, "the fifth part is judged")
    assert (verdicts("P2"), verdicts("P3")) == ({1: "pass"}, {1: "fail"})
    process.kill()
    process.start()
    later = START + 4 * 3600 * SECOND
    publisher.send([says("cmm-01", "measured_id", later, "P2"), says("cmm-01", "bore", later + SECOND, 6.5)])
    wait_until(lambda: verdicts("P2") == {1: "pass", 2: "fail"}, 20.0, "the measurement revised the verdict")
    newest = {v["id"]: v for v in process.query("verdicts")}
    assert newest["P2"]["reasons"] == ["value of bore 6.5 mm is above USL 6 mm by 0.5 mm at cmm-01"]
    assert newest["P3"]["reasons"] == ["stroke: highest of force is 80, above 50"]

    def report(*arguments: str) -> tuple[int, dict[str, Any]]:
        done = fieldlab("report", "parts", "--config", process.config, "--json", *arguments)
        return done.code, json.loads(done.out)

    code, found = report()
    assert (code, found["totals"]) == (1, found["totals"] | {"made": 5, "fail": 2, "revised": 1})
    _, traced = report("--part", "P2")
    assert [e["event"] for e in traced["events"]] == ["start", "consume", "end", "measure"]
    _, saw = report("--saw", "tool=T2")
    assert [p["id"] for p in saw["parts"]] == ["P3", "P4", "P5"]
    assert process.stop() == 0
