//! A connection between two servers, plain or by TLS, which both sides prove themselves with.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

/// How a server proves itself to the others, and whom it takes for one of them.
#[derive(Clone)]
pub(crate) struct Secured {
    /// Where it calls.
    pub(crate) client: Arc<ClientConfig>,
    /// Where it is called.
    pub(crate) server: Arc<ServerConfig>,
}

/// A connection.
pub(super) enum Wire {
    Plain(TcpStream),
    Calls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Called(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Wire {
    /// One to a server that is found under this name.
    ///
    /// # Errors
    /// If nobody can have such a name.
    pub(super) fn to(stream: TcpStream, name: &str, secured: Option<&Secured>) -> io::Result<Self> {
        let Some(secured) = secured else { return Ok(Self::Plain(stream)) };
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(&secured.client), name);
        Ok(Self::Calls(Box::new(StreamOwned::new(tls.map_err(io::Error::other)?, stream))))
    }

    /// One that came from a server.
    ///
    /// # Errors
    /// If TLS cannot begin at all.
    pub(super) fn from(stream: TcpStream, secured: Option<&Secured>) -> io::Result<Self> {
        let Some(secured) = secured else { return Ok(Self::Plain(stream)) };
        let tls = ServerConnection::new(Arc::clone(&secured.server)).map_err(io::Error::other)?;
        Ok(Self::Called(Box::new(StreamOwned::new(tls, stream))))
    }

    /// The connection, if bytes can be written to it as they are.
    pub(super) fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Calls(_) | Self::Called(_) => None,
        }
    }

    /// What is below it.
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Calls(tls) => &tls.sock,
            Self::Called(tls) => &tls.sock,
        }
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Calls(tls) => tls.read(into),
            Self::Called(tls) => tls.read(into),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Calls(tls) => tls.write(bytes),
            Self::Called(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Calls(tls) => tls.flush(),
            Self::Called(tls) => tls.flush(),
        }
    }
}
