//! A small HTTP client: one request on a connection of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// What a server answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lines of `name: value`, the names in lower case.
    pub(crate) head: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The body, which is JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The body's `error`.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error: {self:?}")).to_owned()
    }
}

/// A request; `head` has lines of its own, such as `Authorization: Bearer x`.
pub(crate) fn request(method: &str, path: &str, head: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !head.iter().any(|line| line.starts_with("Host:")) {
        text.push_str("Host: localhost\r\n");
    }
    for line in head {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    [text.as_bytes(), body].concat()
}

/// Sends a request over a stream that is there, and takes the answer.
pub(crate) fn exchange(mut stream: impl Read + Write, request: &[u8]) -> std::io::Result<Answer> {
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    // A server that hangs up without saying so by TLS has said all that there was all the same.
    if let Err(error) = stream.read_to_end(&mut bytes)
        && error.kind() != std::io::ErrorKind::UnexpectedEof
    {
        return Err(error);
    }
    let text = String::from_utf8(bytes).map_err(std::io::Error::other)?;
    let (head, body) =
        text.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no head"))?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let status = status.parse().map_err(std::io::Error::other)?;
    let head: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked =
        head.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    assert!(!chunked, "answers have a length");
    Ok(Answer { status, head, body: body.to_owned() })
}

/// Sends a request, and takes the answer.
pub(crate) fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    head: &[&str],
    body: impl AsRef<[u8]>,
) -> std::io::Result<Answer> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    exchange(stream, &request(method, path, head, body))
}

/// What a path shows.
pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path, &[], "").expect("it answers")
}
