"""What a source counts; nothing is dropped without one of these."""

import msgspec


class Counters(msgspec.Struct):
    """Totals since the source was made.

    Attributes:
        notifications: messages with data.
        readings: readings given to the sink.
        reconnects: sessions after the first.
        gaps: notifications that never came and that the server has no more: readings are lost.
        republished: notifications that never came, or were not acknowledged, and were fetched.
        transfers: sessions that took over the subscription of an earlier one.
        resumed: earlier sessions that went on.
        recreated: items that had gone silent although their value changed, and were made anew.
        undecodable: messages that could not be read; they are in the dead letter.
        unkept: values of a type that cannot be kept; each became a status.
        times_replaced: readings without a usable source time.
        empty: array values without elements.
        ignored: notifications that are not data, such as events.
        acks_refused: acknowledgements that the server did not want.
    """

    notifications: int = 0
    readings: int = 0
    reconnects: int = 0
    gaps: int = 0
    republished: int = 0
    transfers: int = 0
    resumed: int = 0
    recreated: int = 0
    undecodable: int = 0
    unkept: int = 0
    times_replaced: int = 0
    empty: int = 0
    ignored: int = 0
    acks_refused: int = 0
