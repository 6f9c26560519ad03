//! From what a compiler gives, a core module, to what a server takes, a component.

use std::path::Path;

use anyhow::{Context, bail};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, SourceMap};

use super::files::WIT;

/// The worlds, by the interface that each exports.
const WORLDS: [(&str, &str); 6] = [
    ("authorizer", "authorizing"),
    ("guard", "guarding"),
    ("observer", "observing"),
    ("trigger", "triggering"),
    ("view", "viewing"),
    ("setup", "configuring"),
];

/// Encodes a component. A module that was made with generated bindings describes itself; of others it is
/// found by the names of the functions that they export.
///
/// # Errors
/// If it is no module, or its exports and imports are not those of `vivarium:plugin`.
pub(super) fn encode(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (mut module, exports) = strip(module)?;
    if let Some(exports) = exports {
        describe(&mut module, &exports)?;
    }
    let mut encoder =
        ComponentEncoder::default().validate(true).debug_names(false).module(&module)?;
    encoder.encode().context("the module does not fit the package vivarium:plugin")
}

/// The module without what is for debuggers, and, if it does not describe itself, the names that it
/// exports.
fn strip(module: &[u8]) -> anyhow::Result<(Vec<u8>, Option<Vec<String>>)> {
    let mut kept = module.get(..8).unwrap_or_default().to_vec();
    let mut exports = Vec::new();
    let mut is_described = false;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.context("not a WebAssembly module")?;
        match &payload {
            Payload::Version { encoding, .. } if *encoding != wasmparser::Encoding::Module => {
                bail!("it is a component already");
            }
            Payload::CustomSection(section) => {
                let is_description = section.name().starts_with("component-type");
                is_described |= is_description;
                if !is_description && section.name() != "vivarium:plugin" {
                    continue;
                }
            }
            Payload::ExportSection(section) => {
                for export in section.clone() {
                    exports.push(export?.name.to_owned());
                }
            }
            _ => {}
        }
        if let Some((id, range)) = payload.as_section() {
            kept.push(id);
            push_length(&mut kept, range.len());
            kept.extend_from_slice(&module[range]);
        }
    }
    Ok((kept, (!is_described).then_some(exports)))
}

/// A length in LEB128.
fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

/// Adds the descriptions of the worlds whose functions the module exports.
fn describe(module: &mut Vec<u8>, exports: &[String]) -> anyhow::Result<()> {
    let mut source = SourceMap::new();
    for (name, text) in WIT {
        source.push(Path::new(name), text);
    }
    let package = source.parse().map_err(|(_, error)| anyhow::anyhow!("wit/: {error}"))?;
    let mut resolve = Resolve::default();
    let package = resolve.push_group(package)?;
    let mut is_found = false;
    for (interface, world) in WORLDS {
        let prefix = format!("vivarium:plugin/{interface}@");
        if exports.iter().any(|name| name.starts_with(&prefix)) {
            let world = resolve.select_world(&[package], Some(world))?;
            embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)?;
            is_found = true;
        }
    }
    if !is_found {
        bail!(
            "the module exports nothing that a server calls, such as \
             \"vivarium:plugin/guard@0.1.0#judge\""
        );
    }
    Ok(())
}
