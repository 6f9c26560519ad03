//! The rules of paths (ZooKeeper's `PathUtils.validatePath`).

use thiserror::Error;

/// How long a path may be, in bytes. ZooKeeper has no bound of its own; ours comes from the store,
/// whose keys end at 64 KiB.
pub const PATH_BYTES_MAX: usize = 32 * 1024;

/// Why a path is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PathError {
    /// It is empty.
    #[error("a path must not be empty")]
    Empty,
    /// It does not begin at the root.
    #[error("a path must start with /")]
    NotAbsolute,
    /// It ends in `/` and is not the root.
    #[error("a path must not end with /")]
    TrailingSlash,
    /// Two slashes side by side.
    #[error("a path must not have an empty element")]
    EmptyElement,
    /// `.` or `..`.
    #[error("a path must not have relative elements")]
    Relative,
    /// NUL, a control character, a surrogate, a private or a special one.
    #[error("a path must not contain the character U+{0:04X}")]
    Character(u32),
    /// Longer than [`PATH_BYTES_MAX`].
    #[error("a path must not be longer than {PATH_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
}

/// Whether `path` may name a znode.
///
/// # Errors
/// The first rule that it breaks.
pub fn validate(path: &str) -> Result<(), PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(PathError::TooLong(path.len()));
    }
    let Some(rest) = path.strip_prefix('/') else { return Err(PathError::NotAbsolute) };
    if rest.is_empty() {
        return Ok(());
    }
    if rest.ends_with('/') {
        return Err(PathError::TrailingSlash);
    }
    for element in rest.split('/') {
        match element {
            "" => return Err(PathError::EmptyElement),
            "." | ".." => return Err(PathError::Relative),
            _ => {}
        }
    }
    // Plain printable ASCII is nearly every path there is.
    if path.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Ok(());
    }
    for c in path.chars() {
        let c = u32::from(c);
        // Characters beyond the basic plane are surrogates to Java, hence refused there too.
        if matches!(c, 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..=0xffff | 0x1_0000..) {
            return Err(PathError::Character(c));
        }
    }
    Ok(())
}

/// The parent of a valid path and its name; `None` for the root.
pub fn split(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = path.rsplit_once('/')?;
    if name.is_empty() {
        return None;
    }
    Some((if parent.is_empty() { "/" } else { parent }, name))
}

/// The path of `parent`'s child `name`.
pub fn join(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_paths() {
        for good in ["/", "/a", "/a/b", "/a.b/..c/.../d..", "/ü/中文", "/a b"] {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        assert_eq!(validate(""), Err(PathError::Empty));
        assert_eq!(validate("a"), Err(PathError::NotAbsolute));
        assert_eq!(validate("/a/"), Err(PathError::TrailingSlash));
        assert_eq!(validate("//"), Err(PathError::TrailingSlash));
        assert_eq!(validate("/a//b"), Err(PathError::EmptyElement));
        assert_eq!(validate("/a/./b"), Err(PathError::Relative));
        assert_eq!(validate("/.."), Err(PathError::Relative));
        assert_eq!(validate("/a\0"), Err(PathError::Character(0)));
        assert_eq!(validate("/a\u{1f}"), Err(PathError::Character(0x1f)));
        assert_eq!(validate("/a\u{85}"), Err(PathError::Character(0x85)));
        assert_eq!(validate("/a\u{e000}"), Err(PathError::Character(0xe000)));
        assert_eq!(validate("/a\u{fffd}"), Err(PathError::Character(0xfffd)));
        assert_eq!(validate("/a\u{1f600}"), Err(PathError::Character(0x1f600)));
        let long = format!("/{}", "x".repeat(PATH_BYTES_MAX));
        assert_eq!(validate(&long), Err(PathError::TooLong(PATH_BYTES_MAX + 1)));
    }

    #[test]
    fn split_and_join_are_inverse() {
        assert_eq!(split("/"), None);
        for path in ["/a", "/a/b", "/a/b/c"] {
            let (parent, name) = split(path).expect("not the root");
            assert_eq!(join(parent, name), path);
        }
    }
}
