//! A configuration before it has types: a tree of values, each of which knows where it came from.
//!
//! File, environment and flags each become such a tree; they are laid over one another and then
//! decoded once ([`super::decode`]), so that an error in any of them can name its place.
//!
//! Invariants:
//! * A later layer replaces values and lists, and is merged into tables.
//! * Text from the environment or a flag is [`Value::Raw`]: it takes the type that its
//!   key asks for.

use super::error::{ConfigError, Origin};
use std::collections::BTreeMap;
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// A value as its source wrote it.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Text from a place that has no types.
    Raw(String),
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl Node {
    /// A table with nothing in it.
    pub(super) fn empty(origin: Origin) -> Self {
        Self { origin, value: Value::Table(BTreeMap::new()) }
    }

    /// Reads a TOML document. `name` is the file's name for errors.
    pub(super) fn from_toml(text: &str, name: &str) -> Result<Self, ConfigError> {
        let lines = Lines { file: Arc::from(name), text };
        let table = DeTable::parse(text).map_err(|e| ConfigError::Syntax {
            origin: lines.at(e.span().map_or(0, |s| s.start)),
            message: format!("expected TOML: {}", e.message().replace('\n', ", ")),
        })?;
        Ok(Self {
            origin: Origin::File(lines.file.clone(), 0),
            value: lines.table(table.get_ref())?,
        })
    }

    /// Reads one TOML value (`["a", "b"]`, `{ x = 1 }`) out of raw text, at the raw text's origin.
    pub(super) fn from_raw(text: &str, origin: &Origin) -> Result<Self, ConfigError> {
        let syntax = |message: String| ConfigError::Syntax { origin: origin.clone(), message };
        let document = format!("value = {text}");
        let mut tree = Self::from_toml(&document, "")
            .map_err(|e| syntax(format!("expected a TOML value, got `{text}` ({e})")))?;
        tree.set_origin(origin);
        match tree.value {
            Value::Table(mut table) => table
                .remove("value")
                .filter(|_| table.is_empty())
                .ok_or_else(|| syntax(format!("expected one TOML value, got `{text}`"))),
            _ => Err(syntax(format!("expected a TOML value, got `{text}`"))),
        }
    }

    /// A tree of what is already typed, to lay other layers over.
    pub(super) fn from_typed(value: &toml::Value) -> Self {
        let value = match value {
            toml::Value::String(text) => Value::Text(text.clone()),
            toml::Value::Integer(int) => Value::Int(*int),
            toml::Value::Float(float) => Value::Float(*float),
            toml::Value::Boolean(bool) => Value::Bool(*bool),
            toml::Value::Datetime(time) => Value::Text(time.to_string()),
            toml::Value::Array(items) => Value::List(items.iter().map(Self::from_typed).collect()),
            toml::Value::Table(table) => {
                Value::Table(table.iter().map(|(k, v)| (k.clone(), Self::from_typed(v))).collect())
            }
        };
        Self { origin: Origin::Default, value }
    }

    /// Puts `text` at a dotted `path`, making tables on the way.
    pub(super) fn set_raw(&mut self, path: &[String], text: &str, origin: &Origin) {
        let Some((first, rest)) = path.split_first() else {
            *self = Self { origin: origin.clone(), value: Value::Raw(text.to_owned()) };
            return;
        };
        if !matches!(self.value, Value::Table(_)) {
            *self = Self::empty(origin.clone());
        }
        if let Value::Table(table) = &mut self.value {
            let child = table.entry(first.clone()).or_insert_with(|| Self::empty(origin.clone()));
            child.set_raw(rest, text, origin);
        }
    }

    /// Lays `over` on top of this tree.
    pub(super) fn overlay(&mut self, over: Self) {
        match (&mut self.value, over) {
            (Value::Table(below), Self { value: Value::Table(above), .. }) => {
                for (key, node) in above {
                    match below.get_mut(&key) {
                        Some(child) => child.overlay(node),
                        None => {
                            below.insert(key, node);
                        }
                    }
                }
            }
            (_, over) => *self = over,
        }
    }

    /// Where the value at a dotted path came from; the default's origin if nobody set it.
    pub(super) fn origin_of(&self, path: &str) -> Origin {
        let mut node = self;
        for key in path.split('.') {
            let next = match &node.value {
                Value::Table(table) => table.get(key),
                Value::List(items) => key.parse().ok().and_then(|i: usize| items.get(i)),
                _ => None,
            };
            match next {
                Some(child) => node = child,
                // A table given whole, from the environment, is the origin of all within.
                None if matches!(node.value, Value::Raw(_)) => return node.origin.clone(),
                None => return Origin::Default,
            }
        }
        node.origin.clone()
    }

    fn set_origin(&mut self, origin: &Origin) {
        self.origin = origin.clone();
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|n| n.set_origin(origin)),
            Value::Table(table) => table.values_mut().for_each(|n| n.set_origin(origin)),
            _ => {}
        }
    }
}

/// Turns byte offsets of a document into its lines.
struct Lines<'a> {
    file: Arc<str>,
    text: &'a str,
}

impl Lines<'_> {
    fn at(&self, offset: usize) -> Origin {
        let before = self.text.get(..offset).unwrap_or(self.text);
        Origin::File(self.file.clone(), before.matches('\n').count() + 1)
    }

    fn table(&self, table: &DeTable<'_>) -> Result<Value, ConfigError> {
        let mut out = BTreeMap::new();
        for (key, value) in table.iter() {
            let origin = self.at(key.span().start);
            out.insert(key.get_ref().to_string(), self.value(value.get_ref(), origin)?);
        }
        Ok(Value::Table(out))
    }

    fn value(&self, value: &DeValue<'_>, origin: Origin) -> Result<Node, ConfigError> {
        let value = match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(int) => i64::from_str_radix(int.as_str(), int.radix())
                .map(Value::Int)
                .map_err(|_| ConfigError::Syntax {
                    origin: origin.clone(),
                    message: format!("expected a number of at most 64 bits, got {int}"),
                })?,
            DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(bool) => Value::Bool(*bool),
            DeValue::Datetime(time) => Value::Text(time.to_string()),
            DeValue::Array(items) => Value::List(
                items
                    .iter()
                    .map(|item| self.value(item.get_ref(), self.at(item.span().start)))
                    .collect::<Result<_, _>>()?,
            ),
            DeValue::Table(table) => self.table(table)?,
        };
        Ok(Node { origin, value })
    }
}
