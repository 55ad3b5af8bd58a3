"""The `[source.sparkplug]` table."""

from typing import Literal

import msgspec

from fieldlab.config import Duration


class SparkplugConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How we appear as a Sparkplug host application.

    Attributes:
        host_id: our name in the STATE topic; absent: the agent's name.
        primary: whether we publish STATE, on which edge nodes may wait.
        state: the form of STATE: that of Sparkplug 3.0, or that of 2.2.
        rebirth: whether we may ask edge nodes for their birth certificates.
        reorder: how long a message that came too early waits for the ones before it.
        patience: how long data may wait for the birth certificate that explains it, before it is set aside.
    """

    host_id: str = ""
    primary: bool = True
    state: Literal["3.0", "2.2"] = "3.0"
    rebirth: bool = True
    reorder: Duration = Duration(2.0)
    patience: Duration = Duration(60.0)
