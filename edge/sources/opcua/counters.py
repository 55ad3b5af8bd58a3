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
        undecodable: messages and structures that could not be read; they are in the dead letter.
        unkept: values of a type that cannot be kept; each became a status.
        times_replaced: readings without a source time.
        times_set_aside: readings whose source time cannot be; they are in the dead letter.
        empty: array values without elements.
        ignored: notifications that are not data, such as a vendor's own.
        acks_refused: acknowledgements that the server did not want.
        history_reads: answers of a node's history.
        history_not_raw: values of history that the server had computed; they are left out.
        recovered: readings that were read from the server's history.
        events: events written.
        events_known: events that came once more, and were not written again.
        events_unwanted: events of a type or severity that was not asked for, from a server that does not filter.
        unknown_events: events of a client handle that was never given out.
        event_fields_bad: fields of events that hold something else than they should; they are empty.
        event_times_replaced: events without a usable time of their own.
        event_queue_overflows: times that the server's queue of events was full: events are lost.
        event_queues_full: times that as many events came at once as the queue holds: earlier ones may be lost.
        condition_refreshes: whole rounds in which the server told the conditions that it retains.
        conditions_ended: conditions that ended while nobody listened.
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
    times_set_aside: int = 0
    empty: int = 0
    ignored: int = 0
    acks_refused: int = 0
    history_reads: int = 0
    history_not_raw: int = 0
    recovered: int = 0
    events: int = 0
    events_known: int = 0
    events_unwanted: int = 0
    unknown_events: int = 0
    event_fields_bad: int = 0
    event_times_replaced: int = 0
    event_queue_overflows: int = 0
    event_queues_full: int = 0
    condition_refreshes: int = 0
    conditions_ended: int = 0
