//! What is taken along from the checkout: the contract, the SDK, and what a new plugin begins with. So a plugin
//! is written against exactly what this program's server speaks.

/// `wit/`.
pub(super) const WIT: [(&str, &str); 12] = [
    ("authorizer.wit", include_str!("../../../../../wit/authorizer.wit")),
    ("context.wit", include_str!("../../../../../wit/context.wit")),
    ("guard.wit", include_str!("../../../../../wit/guard.wit")),
    ("log.wit", include_str!("../../../../../wit/log.wit")),
    ("observer.wit", include_str!("../../../../../wit/observer.wit")),
    ("plugin.wit", include_str!("../../../../../wit/plugin.wit")),
    ("setup.wit", include_str!("../../../../../wit/setup.wit")),
    ("store.wit", include_str!("../../../../../wit/store.wit")),
    ("tree.wit", include_str!("../../../../../wit/tree.wit")),
    ("trigger.wit", include_str!("../../../../../wit/trigger.wit")),
    ("types.wit", include_str!("../../../../../wit/types.wit")),
    ("view.wit", include_str!("../../../../../wit/view.wit")),
];

macro_rules! sdk {
    ($($file:literal),* $(,)?) => {
        [$(($file, include_str!(concat!("../../../../../plugin-sdk/", $file)))),*]
    };
}

/// `plugin-sdk/`.
pub(super) const SDK: [(&str, &str); 22] = sdk![
    "Cargo.toml",
    "README.md",
    "src/allocator.rs",
    "src/bindings.rs",
    "src/bindings/authorizing.rs",
    "src/bindings/configuring.rs",
    "src/bindings/guarding.rs",
    "src/bindings/imports.rs",
    "src/bindings/observing.rs",
    "src/bindings/triggering.rs",
    "src/bindings/viewing.rs",
    "src/bindings/wit.sha256",
    "src/export.rs",
    "src/host.rs",
    "src/lib.rs",
    "src/points.rs",
    "src/testing.rs",
    "src/testing/current.rs",
    "src/testing/host.rs",
    "src/testing/ops.rs",
    "src/words.rs",
    "c/vivarium_plugin.h",
];

/// What C plugins include.
pub(super) const C_HEADER: &str = include_str!("../../../../../plugin-sdk/c/vivarium_plugin.h");

macro_rules! template {
    ($($file:literal),* $(,)?) => {
        [$(($file, include_str!(concat!("template/", $file, ".txt")))),*]
    };
}

/// What a new plugin begins with; `NAME` stands for its name, also in the names of files.
pub(super) const TEMPLATE: [(&str, &str); 6] = template![
    ".gitignore",
    "Cargo.toml",
    "NAME.toml",
    "README.md",
    "cases/NAME.toml",
    "src/lib.rs",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use sha2::{Digest, Sha256};

    use super::{SDK, WIT};

    /// The files below a directory, relative to it; `target` and the generator of the bindings aside.
    fn files(dir: &Path) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut dirs = vec![dir.to_owned()];
        while let Some(next) = dirs.pop() {
            for entry in std::fs::read_dir(next).expect("it is a directory") {
                let path = entry.expect("it can be listed").path();
                let name = path.strip_prefix(dir).expect("it is inside").display().to_string();
                if ["target", "generator"].contains(&name.as_str()) {
                } else if path.is_dir() {
                    dirs.push(path);
                } else {
                    found.insert(name);
                }
            }
        }
        found
    }

    #[test]
    fn nothing_is_left_behind() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let listed =
            |files: &[(&str, &str)]| files.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(files(&root.join("wit")), listed(&WIT));
        assert_eq!(files(&root.join("plugin-sdk")), listed(&SDK));
    }

    #[test]
    fn the_bindings_are_those_of_the_contract() {
        let mut hash = Sha256::new();
        WIT.iter().for_each(|(_, text)| hash.update(text));
        assert_eq!(
            format!("{:x}\n", hash.finalize()),
            include_str!("../../../../../plugin-sdk/src/bindings/wit.sha256"),
            "wit/ has changed: make the bindings anew with\n  \
             cargo run --manifest-path plugin-sdk/generator/Cargo.toml"
        );
    }
}
