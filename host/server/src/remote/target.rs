//! Which servers, and below which path: a connect string, `HOST:PORT,HOST:PORT/chroot`.

use proto::path;

/// The port of a server that none is given for.
const PORT: u16 = 2181;

/// A parsed connect string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The servers, each as `host:port`.
    pub(crate) servers: Vec<String>,
    /// Empty, or a path that all paths are below.
    chroot: String,
    text: String,
}

impl Target {
    /// Parses a connect string.
    ///
    /// # Errors
    /// What is expected, and what was got.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (list, chroot) = match text.find('/') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let chroot = if chroot == "/" { "" } else { chroot };
        if !chroot.is_empty() {
            path::validate(chroot)
                .map_err(|e| format!("expected HOST:PORT/PATH, got the path {chroot:?}: {e}"))?;
        }
        let servers = list.split(',').map(server).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { servers, chroot: chroot.to_owned(), text: text.to_owned() })
    }

    /// The path that a server knows for one of the user's.
    pub(crate) fn inside(&self, path: &str) -> String {
        match (self.chroot.as_str(), path) {
            ("", _) => path.to_owned(),
            (chroot, "/") => chroot.to_owned(),
            (chroot, _) => format!("{chroot}{path}"),
        }
    }

    /// The user's path for one of a server's. What is outside stays as it is.
    pub(crate) fn outside<'p>(&self, path: &'p str) -> &'p str {
        match path.strip_prefix(self.chroot.as_str()) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

fn server(text: &str) -> Result<String, String> {
    let text = text.trim();
    let wrong = || format!("expected HOST:PORT[,HOST:PORT...][/PATH], got {text:?}");
    let bracketed = text.starts_with('[');
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !bracketed || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if host.is_empty() || (bracketed && !host.ends_with(']')) || (!bracketed && host.contains(':'))
    {
        return Err(wrong());
    }
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
        None => PORT,
    };
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_strings() {
        let target = Target::parse("a:1, b,[::1]:3/x/y").expect("it is right");
        assert_eq!(target.servers, ["a:1", "b:2181", "[::1]:3"]);
        assert_eq!(target.inside("/"), "/x/y");
        assert_eq!(target.inside("/z"), "/x/y/z");
        assert_eq!(target.outside("/x/y"), "/");
        assert_eq!(target.outside("/x/y/z"), "/z");
        assert_eq!(target.outside("/x/yz"), "/x/yz");
        let plain = Target::parse("a/").expect("it is right");
        assert_eq!((plain.inside("/q").as_str(), plain.outside("/")), ("/q", "/"));
        for wrong in ["", "a:", "a:0", "a:b", "a,,b", "::1:2181", "[::1", "a:1/x/", "a:70000"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }
}
