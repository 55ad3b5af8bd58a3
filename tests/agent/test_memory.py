"""An idle agent is small enough for an edge device."""

from collections.abc import Callable
from typing import Any

import psutil

MB = 2**20  # as ps, top and systemd count


def test_idle_agents_keep_to_their_budget(
    opcua_server: Callable[..., Any],
    influxd: Any,
    agent: Callable[..., Any],
    free_port: Callable[[], int],
    wait_until: Callable[..., Any],
) -> None:
    server = opcua_server({"load": {"type": "Double", "value": 0}})
    store = f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "{influxd.create_database()}"\n'
    lean = agent(store + server.source(["load"]), "lean").start()
    whole = agent(server.source(["load"]), "whole", http=f"127.0.0.1:{free_port()}").start()
    for process, budget in ((lean, 100 * MB), (whole, 150 * MB)):
        wait_until(lambda process=process: process.ledger()["stored"] == 1 and process.settled(), 20.0)
        used = psutil.Process(process.process.pid).memory_info().rss
        print(f"{process.folder.name}: {used / MB:.1f} MB of {budget / MB:.0f} MB")
        assert used < budget
        assert abs(process.status()["memory_bytes"] - used) < 5 * MB
        assert process.stop() == 0
