//! A binding's file and the module beside it, as an operator has them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use state::plugins::{Binding, ModuleHash};

/// How large a file of a binding may be: much more than any that makes sense.
const BINDING_BYTES_MAX: u64 = 1 << 20;
/// How large a module's file may be before it is not even read: much more than any setting allows.
const MODULE_BYTES_MAX: u64 = 256 << 20;

/// A binding, and where its module is, as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bundle {
    pub(crate) binding: Binding,
    pub(crate) hash: ModuleHash,
    pub(crate) bytes: u64,
    module: PathBuf,
}

impl Bundle {
    /// Reads a binding's file, and the module that it names, which is looked for beside it.
    ///
    /// # Errors
    /// What is wrong with one of the files, in words.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let binding = read_binding(file)?;
        let path = module_path(file, &binding);
        let module = read_some(&path, MODULE_BYTES_MAX)
            .with_context(|| format!("{}: `module`", file.display()))?;
        ensure!(
            !module.is_empty(),
            "{}: the module {} is empty; was it built?",
            file.display(),
            path.display()
        );
        let (hash, bytes) = (ModuleHash::of(&module), module.len() as u64);
        Ok(Self { binding, hash, bytes, module: path })
    }

    /// The module's file.
    pub(crate) fn module(&self) -> &Path {
        &self.module
    }

    /// Up to so many bytes of the module, from an offset on. Should the file be another one by now, then
    /// what is uploaded has not the hash that was promised, and the servers refuse it.
    ///
    /// # Errors
    /// If the file cannot be read, or is shorter by now.
    pub(crate) fn part(&self, offset: u64, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
        let cannot = || format!("{} cannot be read", self.module.display());
        let mut file = File::open(&self.module).with_context(cannot)?;
        file.seek(SeekFrom::Start(offset)).with_context(cannot)?;
        let mut part = Vec::new();
        file.take(bytes_max as u64).read_to_end(&mut part).with_context(cannot)?;
        ensure!(!part.is_empty(), "{} is shorter than it was", self.module.display());
        Ok(part)
    }
}

/// Reads the file of a binding.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn read_binding(file: &Path) -> anyhow::Result<Binding> {
    let text = read_some(file, BINDING_BYTES_MAX)?;
    let text = String::from_utf8(text).with_context(|| format!("{} is no text", file.display()))?;
    let binding: Binding = toml::from_str(&text)
        .with_context(|| format!("{} is no binding as it stands", file.display()))?;
    if binding.module.is_empty() {
        bail!("{}: `module` is missing: the file of the module, beside this one", file.display());
    }
    // What it may match and read is for the servers to say.
    binding.check(&[]).map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))?;
    Ok(binding)
}

/// Where the module of a binding is.
pub(crate) fn module_path(file: &Path, binding: &Binding) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(&binding.module)
}

fn read_some(path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("{} cannot be read", path.display());
    let bytes = std::fs::metadata(path).with_context(cannot)?.len();
    ensure!(
        bytes <= bytes_max,
        "{} has {bytes} bytes; at most {bytes_max} are read",
        path.display()
    );
    std::fs::read(path).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &[u8]) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("the directory is ours");
        path
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        let good = "name = \"quota\"\nmodule = \"q.wasm\"\nmatch = [\"/tenants/**\"]\n";
        let why = |text: &str| {
            let file = write(dir, "b.toml", text.as_bytes());
            format!("{:#}", Bundle::read(&file).expect_err("it is wrong"))
        };
        assert!(why(good).contains("q.wasm cannot be read"), "{}", why(good));
        write(dir, "q.wasm", b"");
        assert!(why(good).contains("q.wasm is empty"));
        write(dir, "q.wasm", b"\0asm");
        let file = write(dir, "b.toml", good.as_bytes());
        let bundle = Bundle::read(&file).expect("there is nothing wrong with it here");
        assert_eq!((bundle.hash.to_string().len(), bundle.bytes), (64, 4));
        assert_eq!(bundle.part(1, 2).expect("it is there"), b"as");
        assert!(bundle.part(4, 2).is_err());
        let unknown = format!("{good}on-falt = \"deny\"\n");
        assert!(why(&unknown).contains("unknown field `on-falt`"), "{}", why(&unknown));
        assert!(why(&good.replace("/tenants", "tenants")).contains("tenants"));
        assert!(why(&good.replace("q.wasm", "")).contains("`module` is missing"));
        assert!(why(&good.replace("quota", "Quota!")).contains("no good"));
        let none = dir.join("none.toml");
        let none = format!("{:#}", Bundle::read(&none).expect_err("it is not there"));
        assert!(none.contains("none.toml cannot be read"));
    }
}
