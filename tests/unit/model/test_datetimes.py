"""Datetimes: the forms of RFC 3339 that are read, and the instants that they name."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.filter_oracle import instant_of
from vecstow_engine.model.datetimes import microseconds, parse_datetime

READ = [
    pytest.param("2024-05-01T10:00:00Z", "2024-05-01T10:00:00", id="UTC"),
    pytest.param("2024-05-01t10:00:00z", "2024-05-01T10:00:00", id="small letters"),
    pytest.param("2024-05-01 10:00:00Z", "2024-05-01T10:00:00", id="a space"),
    pytest.param("2024-05-01T10:00:00+02:00", "2024-05-01T08:00:00", id="east of Greenwich"),
    pytest.param(
        "2024-01-01T00:30:00+23:59", "2023-12-31T00:31:00", id="the largest offset, into another year"
    ),
    pytest.param("2024-05-01T23:30:00-01:45", "2024-05-02T01:15:00", id="west, into another day"),
    pytest.param("2024-05-01T10:00:00-00:00", "2024-05-01T10:00:00", id="an unknown offset"),
    pytest.param("2024-05-01T10:00:00.5Z", "2024-05-01T10:00:00.500000", id="one digit"),
    pytest.param("2024-05-01T10:00:00.000001Z", "2024-05-01T10:00:00.000001", id="a microsecond"),
    pytest.param(
        "2024-05-01T10:00:00.123456789Z", "2024-05-01T10:00:00.123456", id="nanoseconds are cut off"
    ),
    pytest.param("2024-05-01T10:00:00.9999999+00:00", "2024-05-01T10:00:00.999999", id="no rounding up"),
    pytest.param("2024-02-29T00:00:00Z", "2024-02-29T00:00:00", id="a leap day"),
    pytest.param("0001-01-01T00:00:00Z", "0001-01-01T00:00:00", id="the first instant"),
    pytest.param("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999", id="the last instant"),
]


@pytest.mark.parametrize(("text", "wanted"), READ)
def test_a_datetime_of_rfc_3339_is_an_instant_in_utc(text, wanted):
    instant = parse_datetime(text)
    assert instant is not None
    assert instant.isoformat() == f"{wanted}+00:00"
    assert instant.tzinfo is UTC


NOT_READ = [
    pytest.param("", id="nothing"),
    pytest.param("2024-05-01", id="a date alone"),
    pytest.param("10:00:00Z", id="a time alone"),
    pytest.param("2024-05-01T10:00:00", id="no offset"),
    pytest.param("2024-05-01T10:00Z", id="no seconds"),
    pytest.param("2024-05-01_10:00:00Z", id="another separator"),
    pytest.param("2024-05-01T10:00:00.Z", id="a point without digits"),
    pytest.param("2024-05-01T10:00:00.1234567890Z", id="ten digits"),
    pytest.param("2024-05-01T10:00:00,5Z", id="a comma"),
    pytest.param("2024-05-01T10:00:00+02", id="an offset in hours"),
    pytest.param("2024-05-01T10:00:00+0200", id="an offset without a colon"),
    pytest.param("2024-05-01T10:00:00+02:00:30", id="an offset with seconds"),
    pytest.param("2024-05-01T10:00:00+24:00", id="an offset of a day"),
    pytest.param("2024-05-01T10:00:00+23:60", id="an offset of 60 minutes"),
    pytest.param("2024-05-01T10:00:00 Z", id="a space before the offset"),
    pytest.param(" 2024-05-01T10:00:00Z", id="a space at the start"),
    pytest.param("2024-05-01T10:00:00Z\n", id="a line feed at the end"),
    pytest.param("2024-05-01T24:00:00Z", id="hour 24"),
    pytest.param("2024-05-01T10:60:00Z", id="minute 60"),
    pytest.param("2016-12-31T23:59:60Z", id="a leap second"),
    pytest.param("2023-02-29T00:00:00Z", id="no leap year"),
    pytest.param("2024-13-01T00:00:00Z", id="month 13"),
    pytest.param("2024-00-01T00:00:00Z", id="month 0"),
    pytest.param("2024-05-00T00:00:00Z", id="day 0"),
    pytest.param("0000-01-01T00:00:00Z", id="year 0"),
    pytest.param("12024-05-01T10:00:00Z", id="year 12024"),
    pytest.param("0001-01-01T00:00:00+00:01", id="before year 1 in UTC"),
    pytest.param("9999-12-31T23:59:59-00:01", id="after year 9999 in UTC"),
    pytest.param("2024-W18-3T10:00:00Z", id="a week"),
    pytest.param("20240501T100000Z", id="the basic form of ISO 8601"),
    pytest.param("٢٠٢٤-05-01T10:00:00Z", id="digits of another script"),
    pytest.param("2024-05-01T10:00:00\u212a", id="a letter whose upper case is ASCII"),
]


@pytest.mark.parametrize("text", NOT_READ)
def test_another_text_is_no_datetime(text):
    assert parse_datetime(text) is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("1970-01-01T00:00:00Z", 0, id="the epoch"),
        pytest.param("1969-12-31T23:59:59.999999Z", -1, id="a microsecond before"),
        pytest.param("2024-05-01T10:00:00.000001Z", 1_714_557_600_000_001, id="after"),
        pytest.param("0001-01-01T00:00:00Z", -62_135_596_800_000_000, id="the first instant"),
        pytest.param("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999, id="the last instant"),
    ],
)
def test_an_instant_has_exact_microseconds(text, wanted):
    instant = parse_datetime(text)
    assert instant is not None
    assert microseconds(instant) == wanted
    assert -(2**63) <= wanted < 2**63


PIECES = st.sampled_from(
    ["0000", "0001", "2024", "9999", "00", "01", "02", "12", "23", "24", "29", "31", "59", "60"]
)
TEXTS = st.one_of(
    st.builds(
        "{}-{}-{}{}{}:{}:{}{}{}".format,
        PIECES,
        PIECES,
        PIECES,
        st.sampled_from("Tt _"),
        PIECES,
        PIECES,
        PIECES,
        st.sampled_from(["", ".", ".1", ".0000019"]),
        st.sampled_from(["", "Z", "z", "+00:00", "-23:59", "+24:00", "+0100"]),
    ),
    st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(text=TEXTS)
def test_agrees_with_the_oracle(text):
    """The oracle reads a text by position, and counts from year 1."""
    instant, wanted = parse_datetime(text), instant_of(text)
    first = datetime(1, 1, 1, tzinfo=UTC)
    assert (None if instant is None else (instant - first) // timedelta(microseconds=1)) == wanted
