//! A small blocking client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proto::codec::Reader;
use proto::connect::PASSWORD_BYTES;
use proto::frame::next_frame;
use proto::{Acl, ConnectRequest, ConnectResponse, OpCode, Reply, ReplyHeader, Request};

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    input: BytesMut,
    xid: i32,
}

impl Client {
    pub(crate) fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: BytesMut::new(), xid: 0 })
    }

    pub(crate) fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let (client, response) =
            Self::attach(address, 30_000, 0, Bytes::from_static(&[0; PASSWORD_BYTES]))?;
        assert!(response.timeout_ms > 0, "a new session is never expired");
        Ok(client)
    }

    /// Asks for a session: a new one, whose id is 0, or one that there is.
    pub(crate) fn attach(
        address: SocketAddr,
        timeout_ms: i32,
        session_id: i64,
        password: Bytes,
    ) -> std::io::Result<(Self, ConnectResponse)> {
        Self::attach_after(address, timeout_ms, session_id, password, 0)
    }

    /// The same, of somebody who is content with a server that is read-only.
    pub(crate) fn attach_to_read(
        address: SocketAddr,
        timeout_ms: i32,
        session_id: i64,
        password: Bytes,
    ) -> std::io::Result<(Self, ConnectResponse)> {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms,
            session_id,
            password,
            read_only: Some(true),
        };
        Self::begin(address, &request)
    }

    /// The same, of somebody who has seen this zxid.
    pub(crate) fn attach_after(
        address: SocketAddr,
        timeout_ms: i32,
        session_id: i64,
        password: Bytes,
        last_zxid_seen: i64,
    ) -> std::io::Result<(Self, ConnectResponse)> {
        let (protocol_version, read_only) = (0, Some(false));
        let request = ConnectRequest {
            protocol_version,
            last_zxid_seen,
            timeout_ms,
            session_id,
            password,
            read_only,
        };
        Self::begin(address, &request)
    }

    fn begin(
        address: SocketAddr,
        request: &ConnectRequest,
    ) -> std::io::Result<(Self, ConnectResponse)> {
        let mut client = Self::open(address)?;
        let mut out = BytesMut::new();
        request.encode(&mut out);
        client.stream.write_all(&out)?;
        let response = ConnectResponse::decode(client.frame()?).map_err(std::io::Error::other)?;
        Ok((client, response))
    }

    pub(crate) fn frame(&mut self) -> std::io::Result<Bytes> {
        loop {
            if let Some(frame) =
                next_frame(&mut self.input, 64 << 20).map_err(std::io::Error::other)?
            {
                return Ok(frame);
            }
            let mut chunk = [0; 16 << 10];
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.input.extend_from_slice(&chunk[..read]);
        }
    }

    pub(crate) fn send(&mut self, request: &Request) -> std::io::Result<i32> {
        self.xid += 1;
        let mut out = BytesMut::new();
        request.encode(self.xid, &mut out);
        self.stream.write_all(&out)?;
        Ok(self.xid)
    }

    pub(crate) fn receive(&mut self, op: OpCode) -> std::io::Result<(ReplyHeader, Option<Reply>)> {
        let mut reader = Reader::new(self.frame()?);
        let header = ReplyHeader::decode(&mut reader).map_err(std::io::Error::other)?;
        if header.err != 0 {
            return Ok((header, None));
        }
        let reply = Reply::decode(op, &mut reader).map_err(std::io::Error::other)?;
        Ok((header, Some(reply)))
    }

    pub(crate) fn ask(
        &mut self,
        request: &Request,
    ) -> std::io::Result<(ReplyHeader, Option<Reply>)> {
        self.send(request)?;
        self.receive(request.opcode())
    }
}

pub(crate) fn create(path: &str, data: &[u8]) -> Request {
    Request::Create(proto::request::Create {
        op: OpCode::Create,
        path: path.to_owned(),
        data: Some(Bytes::copy_from_slice(data)),
        acl: vec![Acl::world(31)],
        flags: 0,
        ttl_ms: -1,
    })
}
