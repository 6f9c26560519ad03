//! Makes the bindings of `vivarium-plugin-sdk` from `wit/`: one file for each world, and a digest of what they
//! were made from, by which a test of the server finds that they are out of date.

use std::path::{Path, PathBuf};

use anyhow::Result;
use sha2::{Digest, Sha256};
use wit_bindgen_core::{Files, WorldGenerator};
use wit_bindgen_rust::{Opts, WithOption};
use wit_parser::Resolve;

/// The worlds that export something, and the macro that does it.
const WORLDS: [(&str, &str); 6] = [
    ("authorizing", "export_authorizer"),
    ("guarding", "export_guard"),
    ("observing", "export_observer"),
    ("triggering", "export_trigger"),
    ("viewing", "export_view"),
    ("configuring", "export_setup"),
];
/// The interfaces that all of them share.
const SHARED: [&str; 5] = ["types", "tree", "store", "context", "log"];

fn main() -> Result<()> {
    generate("imports", Opts { generate_all: true, ..Opts::default() })?;
    for (world, export) in WORLDS {
        let shared = |name| {
            let module = format!("crate::bindings::imports::vivarium::plugin::{name}");
            (format!("vivarium:plugin/{name}@0.1.0"), WithOption::Path(module))
        };
        let opts = Opts {
            pub_export_macro: true,
            export_macro_name: Some(export.into()),
            with: SHARED.map(shared).to_vec(),
            ..Opts::default()
        };
        generate(world, opts)?;
    }
    std::fs::write(root().join("plugin-sdk/src/bindings/wit.sha256"), digest()?)?;
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Of all files of `wit/`, in the order of their names, one after the other.
fn digest() -> Result<String> {
    let files = std::fs::read_dir(root().join("wit"))?.map(|entry| Ok(entry?.path()));
    let mut files = files.collect::<Result<Vec<_>>>()?;
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        hash.update(std::fs::read(file)?);
    }
    Ok(format!("{:x}\n", hash.finalize()))
}

fn generate(world: &str, opts: Opts) -> Result<()> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(root().join("wit"))?;
    let id = resolve.select_world(&[package], Some(world))?;
    let opts = Opts {
        format: true,
        additional_derive_attributes: ["PartialEq", "Eq", "Default"].map(String::from).to_vec(),
        // An enum without a first among equals.
        additional_derive_ignore: vec!["decision".into()],
        ..opts
    };
    let mut files = Files::default();
    opts.build().generate(&mut resolve, id, &mut files)?;
    for (_, bytes) in files.iter() {
        std::fs::write(root().join(format!("plugin-sdk/src/bindings/{world}.rs")), bytes)?;
    }
    Ok(())
}
