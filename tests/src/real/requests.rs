//! Requests, short.

use bytes::Bytes;
use proto::{Acl, CreateMode, OpCode, Request};

/// A `create` for everyone.
pub fn create_op(path: &str, data: &str, mode: CreateMode) -> proto::request::Create {
    proto::request::Create {
        op: OpCode::Create,
        path: path.to_owned(),
        data: Some(Bytes::copy_from_slice(data.as_bytes())),
        acl: vec![Acl::world(31)],
        flags: mode.flags(),
        ttl_ms: -1,
    }
}

/// The same as a request.
pub fn create(path: &str, data: &str, mode: CreateMode) -> Request {
    Request::Create(create_op(path, data, mode))
}

/// A `setData`; version -1 is any.
pub fn set(path: &str, data: &str, version: i32) -> Request {
    let data = Some(Bytes::copy_from_slice(data.as_bytes()));
    Request::SetData { path: path.to_owned(), data, version }
}

/// A `getData`.
pub fn get(path: &str, watch: bool) -> Request {
    Request::GetData { path: path.to_owned(), watch }
}

/// An `exists` without a watch.
pub fn exists(path: &str) -> Request {
    Request::Exists { path: path.to_owned(), watch: false }
}

/// A `sync`.
pub fn sync(path: &str) -> Request {
    Request::Sync { path: path.to_owned() }
}
