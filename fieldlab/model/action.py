"""What the platform did, or would have done, to a machine: the audit trail."""

from typing import Literal

import msgspec

from fieldlab.model.place import Place

ActionOutcome = Literal["done", "dry_run", "refused", "failed", "limited", "unknown"]


class ActionRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One action on a machine: a row of the measurement `action`, append-only.

    Attributes:
        time: when it was decided, ns.
        place: the machine.
        action: its name in the configuration.
        id: the same for every row about one trigger.
        trigger: the finding's or verdict's id that asked for it.
        target: the node or method, or the topic.
        value: what was written or passed, as text.
        outcome: `done`, `dry_run`, `refused` by the machine, `failed` to reach it, `limited` by the rate limit, or
            `unknown`: a crash came between sending and its answer.
        detail: in words, such as the machine's status code.
    """

    time: int
    place: Place
    action: str
    id: str
    trigger: str = ""
    target: str = ""
    value: str = ""
    outcome: ActionOutcome = "done"
    detail: str = ""
