//! Durations and sizes as people write them: `2000`, `"2s"`, `"64MiB"`.
//!
//! Invariants:
//! * A plain number is in the unit that the key's name carries (`-ms`, `-bytes`).
//! * A unit of the wrong kind, an unknown one, and a value that does not fit are errors,
//!   never guesses.

use serde::de::{Error, Unexpected, Visitor};
use std::fmt;

/// Parses a duration; a plain number is milliseconds. `None` if it is not one.
pub(super) fn parse_ms(text: &str) -> Option<u64> {
    scaled(
        text,
        &[
            ("", 1),
            ("ms", 1),
            ("s", 1_000),
            ("m", 60_000),
            ("min", 60_000),
            ("h", 3_600_000),
            ("d", 86_400_000),
        ],
    )
}

/// Parses a size; a plain number is bytes. `None` if it is not one.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    scaled(
        text,
        &[
            ("", 1),
            ("B", 1),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1 << 40),
            ("kB", 1_000),
            ("KB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("TB", 1_000_000_000_000),
        ],
    )
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.replace('_', "").parse().ok()?;
    let factor = units.iter().find(|(name, _)| *name == unit.trim())?.1;
    // TOML's integers are signed: a value beyond them could not be printed again.
    number.checked_mul(factor).filter(|n| i64::try_from(*n).is_ok())
}

/// What a quantity is made of, for [`Quantity`].
struct Kind {
    expected: &'static str,
    parse: fn(&str) -> Option<u64>,
}

const DURATION: Kind = Kind {
    expected: "a duration: a whole number of milliseconds, or text such as \"500ms\", \"2s\", \
               \"5m\", \"1h\", \"1d\"",
    parse: parse_ms,
};

const SIZE: Kind = Kind {
    expected: "a size: a whole number of bytes, or text such as \"512KiB\", \"64MiB\", \"1GiB\", \
               \"10MB\"",
    parse: parse_bytes,
};

struct Quantity(&'static Kind);

impl Visitor<'_> for Quantity {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.expected)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
        u64::try_from(value).map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        (self.0.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// `#[serde(with)]` for a `u64` of milliseconds.
pub(super) mod ms {
    use super::{DURATION, Quantity};
    use serde::{Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    pub(in super::super) fn serialize<S: Serializer>(v: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(*v)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        d.deserialize_any(Quantity(&DURATION))
    }
}

/// `#[serde(with)]` for a `u64` of bytes.
pub(super) mod bytes {
    use super::{Quantity, SIZE};
    use serde::{Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    pub(in super::super) fn serialize<S: Serializer>(v: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(*v)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        d.deserialize_any(Quantity(&SIZE))
    }
}

/// `#[serde(with)]` for an optional `u64` of milliseconds.
pub(super) mod ms_opt {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Ms(#[serde(with = "super::ms")] u64);

    pub(in super::super) fn serialize<S: Serializer>(
        v: &Option<u64>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        v.map(Ms).serialize(s)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<u64>, D::Error> {
        Ok(Option::<Ms>::deserialize(d)?.map(|ms| ms.0))
    }
}

/// `#[serde(with)]` for an address that `"none"` turns off, printed that way too, because its
/// default is an address and leaving it out would bring the default back.
pub(super) mod or_none {
    use proto::Address;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        v: &Option<Address>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match v {
            Some(address) => address.serialize(s),
            None => s.serialize_str("none"),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Address>, D::Error> {
        // The decoder turns the text "none" into an absent option.
        Option::<Address>::deserialize(d)
    }
}
