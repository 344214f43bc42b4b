from datetime import UTC, datetime, timedelta, timezone

import pytest

from autopeft.export._format import (
    format_bytes,
    format_count,
    format_duration,
    format_score,
    format_share,
    format_short_count,
    format_time,
    format_value,
    printable,
)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (format_score(0.64321), "0.6432"),
        (format_score(-1.5), "-1.5000"),
        (format_score(12345.6), "12,346"),
        (format_count(1234567), "1,234,567"),
        (format_share(1, 100), "1.00 %"),
        (format_share(0, 100), "0.00 %"),
        (format_share(1, 1_000_000), "0.0001 %"),
        (format_duration(8.24), "8.2 s"),
        (format_duration(0.004251), "4.25 ms"),
        (format_duration(0), "0.0 s"),
        (format_duration(185), "3 min 05 s"),
        (format_duration(7800), "2 h 10 min"),
        (format_bytes(1023), "1023 B"),
        (format_bytes(3 * 2**30), "3.0 GiB"),
        (format_short_count(950), "950"),
        (format_short_count(12_000), "12k"),
        (format_short_count(1_500_000), "1.5M"),
        (format_value(1234, "parameters"), "1,234"),
        (format_value(2.0, "s"), "2.0 s"),
        (format_value(2048, "bytes"), "2.0 KiB"),
        (format_value(240.04, "examples/s"), "240.0"),
        (format_value(0.01234, "nats"), "0.01234"),
        (format_value(0.5), "0.5000"),
    ],
)
def test_numbers_for_people(got: str, expected: str) -> None:
    assert got == expected


def test_missing_is_an_empty_cell() -> None:
    assert format_score(None) == format_count(None) == format_duration(None) == format_bytes(None) == ""
    assert format_share(None, 100) == format_share(1, None) == format_share(1, 0) == format_time(None) == ""
    assert format_value(None, "s") == ""


def test_times_are_shown_in_utc() -> None:
    moment = datetime(2026, 11, 21, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert format_time(moment) == "2026-11-20 23:30:00 UTC"
    assert format_time(datetime(2026, 11, 21, 1, 30)) == format_time(datetime(2026, 11, 21, 1, 30, tzinfo=UTC))


def test_control_characters_cannot_steer_a_terminal() -> None:
    assert printable("a\x1b[31mb\x00\r\u202ec\ttab\nline é ★") == "a\ufffd[31mb\ufffd\ufffd\ufffdc\ttab\nline é ★"
