//! Gives a tree its types: a serde deserializer over [`Node`].
//!
//! It exists because an error must name file, line and the nearest known key, and because text from
//! the environment has to become whatever type its key has. serde tells both to the deserializer;
//! a ready-made one throws them away or flattens them into prose.

use super::error::{ConfigError, Origin, nearest};
use super::tree::{Node, Value};
use serde::Deserialize;
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use std::collections::btree_map;
use std::fmt;
use std::vec;

/// Decodes a whole tree.
///
/// # Errors
/// [`ConfigError`] with the place of the first thing that does not fit.
pub(super) fn decode<'de, T: Deserialize<'de>>(tree: Node) -> Result<T, ConfigError> {
    let origin = tree.origin.clone();
    T::deserialize(Cursor { node: tree, path: String::new() })
        .map_err(|e| e.at(&origin, "").into_config())
}

/// A node about to be decoded, and its dotted path.
struct Cursor {
    node: Node,
    path: String,
}

impl Cursor {
    fn unexpected(&self) -> Unexpected<'_> {
        match &self.node.value {
            Value::Raw(text) | Value::Text(text) => Unexpected::Str(text),
            Value::Int(int) => Unexpected::Signed(*int),
            Value::Float(float) => Unexpected::Float(*float),
            Value::Bool(bool) => Unexpected::Bool(*bool),
            Value::List(_) => Unexpected::Seq,
            Value::Table(_) => Unexpected::Map,
        }
    }

    fn mismatch(&self, expected: &dyn Expected) -> DecodeError {
        <DecodeError as de::Error>::invalid_type(self.unexpected(), expected)
    }

    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let parsed = match &self.node.value {
            Value::Raw(text) => text.trim().replace('_', "").parse().ok(),
            Value::Int(int) => Some(*int),
            _ => None,
        };
        match parsed {
            Some(int) => visitor.visit_i64(int),
            None => Err(self.mismatch(&visitor)),
        }
    }

    /// Raw text that stands for a list or a table becomes one.
    fn structured(self) -> Result<Self, DecodeError> {
        let Value::Raw(text) = &self.node.value else { return Ok(self) };
        let text = text.trim();
        let node = if text.starts_with(['[', '{']) {
            Node::from_raw(text, &self.node.origin).map_err(DecodeError::done)?
        } else {
            let items = text.split(',').map(str::trim).filter(|s| !s.is_empty());
            let items = items.map(|item| Node {
                origin: self.node.origin.clone(),
                value: Value::Raw(item.to_owned()),
            });
            Node { origin: self.node.origin.clone(), value: Value::List(items.collect()) }
        };
        Ok(Self { node, path: self.path })
    }

    fn child(path: &str, key: &str) -> String {
        if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
    }
}

impl<'de> Deserializer<'de> for Cursor {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let Self { node, path } = self;
        match node.value {
            Value::Raw(text) | Value::Text(text) => visitor.visit_string(text),
            Value::Int(int) => visitor.visit_i64(int),
            Value::Float(float) => visitor.visit_f64(float),
            Value::Bool(bool) => visitor.visit_bool(bool),
            Value::List(items) => {
                visitor.visit_seq(Items { items: items.into_iter().enumerate(), path })
            }
            Value::Table(table) => visitor.visit_map(Entries {
                entries: table.into_iter(),
                current: None,
                at: (node.origin, path.clone()),
                path,
            }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let parsed = match &self.node.value {
            Value::Raw(text) => text.trim().parse().ok(),
            Value::Bool(bool) => Some(*bool),
            _ => None,
        };
        match parsed {
            Some(bool) => visitor.visit_bool(bool),
            None => Err(self.mismatch(&"true or false")),
        }
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.integer(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.integer(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.integer(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Raw(text) | Value::Text(text) if text == "none" => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let cursor = self.structured()?;
        match cursor.node.value {
            Value::List(_) => cursor.deserialize_any(visitor),
            _ => Err(cursor.mismatch(&"a list, such as [\"a\", \"b\"]")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let cursor = self.structured()?;
        match cursor.node.value {
            Value::Table(_) => cursor.deserialize_any(visitor),
            _ => Err(cursor.mismatch(&"a table, such as { key = \"value\" }")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let cursor = self.structured()?;
        match cursor.node.value {
            Value::Table(_) => cursor.deserialize_any(visitor),
            _ => {
                let expected = format!("a table with the keys {}", fields.join(", "));
                Err(cursor.mismatch(&expected.as_str()))
            }
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Raw(text) | Value::Text(text) => {
                visitor.visit_enum(text.as_str().into_deserializer())
            }
            _ => Err(self.mismatch(&one_of(variants).as_str())),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u16 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct identifier ignored_any
    }
}

struct Items {
    items: std::iter::Enumerate<vec::IntoIter<Node>>,
    path: String,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let (origin, path) = (node.origin.clone(), format!("{}.{index}", self.path));
        let value = seed.deserialize(Cursor { node, path: path.clone() });
        value.map(Some).map_err(|e| e.at(&origin, &path))
    }
}

struct Entries {
    entries: btree_map::IntoIter<String, Node>,
    current: Option<(String, Node)>,
    /// The table's own place, for a key that is missing from it.
    at: (Origin, String),
    path: String,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        let Some((key, node)) = self.entries.next() else { return Ok(None) };
        let parsed =
            seed.deserialize(IntoDeserializer::<DecodeError>::into_deserializer(key.as_str()));
        let parsed = parsed.map_err(|e| e.at(&node.origin, &self.at.1))?;
        self.current = Some((key, node));
        Ok(Some(parsed))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DecodeError> {
        let (key, node) = self.current.take().expect("serde asks for a key before its value");
        let (origin, path) = (node.origin.clone(), Cursor::child(&self.path, &key));
        seed.deserialize(Cursor { node, path: path.clone() }).map_err(|e| e.at(&origin, &path))
    }
}

/// An error on its way out of serde, until it has met its place.
#[derive(Debug)]
pub(super) struct DecodeError {
    what: What,
    at: Option<(Origin, String)>,
}

#[derive(Debug)]
enum What {
    Value { expected: String, got: String },
    UnknownKey { key: String, known: Vec<String> },
    Done(Box<ConfigError>),
}

impl DecodeError {
    fn new(what: What) -> Self {
        Self { what, at: None }
    }

    fn done(error: ConfigError) -> Self {
        Self::new(What::Done(Box::new(error)))
    }

    /// Fixes the place, unless an inner level already did.
    fn at(mut self, origin: &Origin, path: &str) -> Self {
        self.at.get_or_insert_with(|| (origin.clone(), path.to_owned()));
        self
    }

    fn into_config(self) -> ConfigError {
        let (origin, path) = self.at.unwrap_or((Origin::Default, String::new()));
        match self.what {
            What::Done(error) => *error,
            What::Value { expected, got } => {
                ConfigError::Value { origin, key: path, expected, got }
            }
            What::UnknownKey { key, known } => {
                ConfigError::UnknownKey { origin, section: path, key, known }
            }
        }
    }
}

fn one_of(variants: &[&str]) -> String {
    format!("one of \"{}\"", variants.join("\", \""))
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.what)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(What::Value { expected: message.to_string(), got: "something else".into() })
    }

    fn invalid_type(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(What::Value { expected: expected.to_string(), got: got.to_string() })
    }

    fn invalid_value(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(got, expected)
    }

    fn unknown_variant(variant: &str, variants: &'static [&'static str]) -> Self {
        let mut got = format!("\"{variant}\"");
        if let Some(near) = nearest(variant, variants) {
            got.push_str(&format!(" (did you mean \"{near}\"?)"));
        }
        Self::new(What::Value { expected: one_of(variants), got })
    }

    fn unknown_field(field: &str, fields: &'static [&'static str]) -> Self {
        let known = fields.iter().map(|f| (*f).to_owned()).collect();
        Self::new(What::UnknownKey { key: field.to_owned(), known })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(What::Value { expected: format!("a key `{field}`"), got: "none".into() })
    }
}
