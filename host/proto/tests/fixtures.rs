//! Frames captured from a real ZooKeeper decode, encode to the same bytes, and do no harm when cut
//! or damaged.
//!
//! The files are in `fixtures/`, whose README.md has their format. What a frame from the server
//! answers is told by its name, so that this test does not pair requests with replies by itself,
//! except to see that a request which cannot be decoded is one that ZooKeeper refused as well.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use proto::codec::Reader;
use proto::connect::{ConnectRequest, ConnectResponse};
use proto::error::ErrorCode;
use proto::event::WatchEvent;
use proto::header::{ReplyHeader, RequestHeader};
use proto::opcode::OpCode;
use proto::reply::Reply;
use proto::request::Request;

/// Files with nulls where we decode an empty string or list: a null ACL, the null fields of a
/// reconfig. ZooKeeper treats the two alike there, so the difference is not kept.
const WITH_NULLS: [&str; 2] = ["create", "reconfig"];

/// One line of a fixture.
#[derive(Debug, Clone)]
struct Frame {
    file: String,
    line: usize,
    from_client: bool,
    connection: String,
    name: String,
    payload: Bytes,
}

impl Frame {
    fn place(&self) -> String {
        format!("{}.txt:{} ({})", self.file, self.line, self.name)
    }

    fn opcode(&self) -> OpCode {
        *OpCode::ALL
            .iter()
            .find(|op| op.name() == self.name)
            .unwrap_or_else(|| panic!("{}: no operation of this name", self.place()))
    }
}

fn frames() -> Vec<Frame> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap_or_else(|e| panic!("{}: {e}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    let frames: Vec<Frame> = files.iter().flat_map(|path| read(path)).collect();
    assert!(frames.len() > 300, "only {} frames in {}", frames.len(), directory.display());
    frames
}

fn read(path: &Path) -> Vec<Frame> {
    let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let text = std::fs::read_to_string(path).unwrap();
    let mut frames = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            [direction @ (">" | "<"), connection, name, hex] => frames.push(Frame {
                file: file.clone(),
                line: number + 1,
                from_client: direction == ">",
                connection: connection.to_owned(),
                name: name.to_owned(),
                payload: unhex(hex),
            }),
            ["!", _, "closed"] | [""] | ["#", ..] => {}
            _ => panic!("{file}.txt:{}: not a line of a fixture: {line}", number + 1),
        }
    }
    frames
}

fn unhex(hex: &str) -> Bytes {
    assert!(hex.len().is_multiple_of(2), "an odd number of digits: {hex}");
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// What a payload decodes to; `Debug` is only used to compare and to show.
#[derive(Debug, PartialEq)]
enum Decoded {
    ConnectRequest(ConnectRequest),
    ConnectResponse(ConnectResponse),
    Request(i32, Request),
    UnknownOperation,
    Event(WatchEvent),
    Reply(ReplyHeader, Reply),
    Error(ReplyHeader),
}

fn decode(frame: &Frame, payload: Bytes) -> Result<Decoded, proto::error::DecodeError> {
    if frame.name == "connect" {
        return if frame.from_client {
            ConnectRequest::decode(payload).map(Decoded::ConnectRequest)
        } else {
            ConnectResponse::decode(payload).map(Decoded::ConnectResponse)
        };
    }
    let mut r = Reader::new(payload);
    if frame.from_client {
        let header = RequestHeader::decode(&mut r)?;
        return match OpCode::from_i32(header.opcode) {
            Some(op) => Ok(Decoded::Request(header.xid, Request::decode(op, &mut r)?)),
            None => Ok(Decoded::UnknownOperation),
        };
    }
    let header = ReplyHeader::decode(&mut r)?;
    if frame.name == "event" {
        return WatchEvent::decode(header, &mut r).map(Decoded::Event);
    }
    // A failed sasl is the one error with a body.
    if header.err != 0 && frame.name != "sasl" {
        return Ok(Decoded::Error(header));
    }
    Ok(Decoded::Reply(header, Reply::decode(frame.opcode(), &mut r)?))
}

/// The payload as we would send it; `None` for what we never send.
fn encode(decoded: &Decoded) -> Option<Bytes> {
    let mut out = BytesMut::new();
    match decoded {
        Decoded::ConnectRequest(request) => request.encode(&mut out),
        Decoded::ConnectResponse(response) => response.encode(&mut out),
        Decoded::Request(xid, request) => request.encode(*xid, &mut out),
        Decoded::UnknownOperation => return None,
        Decoded::Event(event) => WatchEvent::encode(event.kind, &event.path, event.zxid, &mut out),
        Decoded::Reply(header, reply) => reply.encode(*header, &mut out),
        Decoded::Error(header) => Reply::encode_error(*header, &mut out),
    }
    let frame = out.freeze();
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap());
    assert_eq!(length as usize, frame.len() - 4, "the length prefix counts the payload");
    Some(frame.slice(4..))
}

/// Whether the server answered this request, which we cannot decode, with a marshalling error.
fn was_refused(frames: &[Frame], request: &Frame) -> bool {
    let xid = &request.payload[..4];
    frames
        .iter()
        .filter(|f| f.file == request.file && f.connection == request.connection)
        .filter(|f| !f.from_client && f.line > request.line && &f.payload[..4] == xid)
        .any(|f| f.payload[12..16] == (ErrorCode::MarshallingError as i32).to_be_bytes())
}

#[test]
fn frames_decode_and_encode_to_the_same_bytes() {
    let frames = frames();
    for frame in &frames {
        let decoded = match decode(frame, frame.payload.clone()) {
            Ok(decoded) => decoded,
            Err(_) if frame.from_client && was_refused(&frames, frame) => continue,
            Err(error) => panic!("{}: {error}", frame.place()),
        };
        let Some(encoded) = encode(&decoded) else {
            assert_eq!(frame.name, "unknown", "{}", frame.place());
            continue;
        };
        if encoded == frame.payload {
            continue;
        }
        let with_nulls = frame.from_client && WITH_NULLS.contains(&frame.file.as_str());
        assert!(with_nulls, "{}: {decoded:?}\n {:x}\n {encoded:x}", frame.place(), frame.payload);
        assert_eq!(decode(frame, encoded).unwrap(), decoded, "{}", frame.place());
    }
}

#[test]
fn every_operation_is_there() {
    let frames = frames();
    let asked: BTreeSet<&str> =
        frames.iter().filter(|f| f.from_client).map(|f| f.name.as_str()).collect();
    let answered: BTreeSet<&str> =
        frames.iter().filter(|f| !f.from_client).map(|f| f.name.as_str()).collect();
    for op in OpCode::ALL {
        // No client sends the first: a session is made by the connect frame. No ZooKeeper has the
        // second: it is our own.
        if !matches!(op, OpCode::CreateSession | OpCode::Operator) {
            assert!(asked.contains(op.name()), "no request in the fixtures: {}", op.name());
            assert!(answered.contains(op.name()), "no reply in the fixtures: {}", op.name());
        }
    }
    assert!(answered.contains("event"), "no watch event in the fixtures");
}

#[test]
fn our_own_operation_survives_the_wire_and_no_part_of_it_passes() {
    let body = Bytes::from_static(b"{}");
    let request = Request::Operator { name: "show".to_owned(), body: body.clone() };
    let mut out = BytesMut::new();
    request.encode(7, &mut out);
    let payload = out.freeze().slice(4..);
    let mut reader = Reader::new(payload.clone());
    let header = RequestHeader::decode(&mut reader).unwrap();
    assert_eq!((header.xid, header.opcode), (7, 200));
    assert_eq!(Request::decode(OpCode::Operator, &mut reader), Ok(request));
    for length in 8..payload.len() {
        let mut reader = Reader::new(payload.slice(8..length));
        assert!(Request::decode(OpCode::Operator, &mut reader).is_err(), "{length}");
    }
    let mut out = BytesMut::new();
    Reply::Operator(body.clone()).encode(ReplyHeader { xid: 7, zxid: 1, err: 0 }, &mut out);
    let mut reader = Reader::new(out.freeze().slice(4..));
    ReplyHeader::decode(&mut reader).unwrap();
    assert_eq!(Reply::decode(OpCode::Operator, &mut reader), Ok(Reply::Operator(body)));
}

#[test]
fn a_truncated_frame_is_an_error_at_every_length() {
    for frame in &frames() {
        let Ok(whole) = decode(frame, frame.payload.clone()) else { continue };
        for length in 0..frame.payload.len() {
            let cut = decode(frame, frame.payload.slice(..length));
            // The read-only byte of a connect may be left out; nothing else may.
            let complete = match &whole {
                Decoded::ConnectRequest(request) => {
                    request.read_only.is_some() && length + 1 == frame.payload.len()
                }
                Decoded::ConnectResponse(response) => {
                    response.read_only.is_some() && length + 1 == frame.payload.len()
                }
                _ => false,
            };
            assert_eq!(cut.is_ok(), complete, "{} cut to {length}: {cut:?}", frame.place());
        }
    }
}

#[test]
fn a_damaged_frame_never_panics() {
    // A linear congruential generator (Knuth's constants): the same damage on every run.
    let mut state = 0x5eed_u64;
    let mut random = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut refused, mut accepted) = (0, 0);
    for frame in &frames() {
        for _ in 0..500 {
            let mut bytes = frame.payload.to_vec();
            for _ in 0..=random(4) {
                let at = random(bytes.len());
                // Extremes of lengths and counts are the likeliest to do harm.
                bytes[at] = [0x00, 0x7f, 0x80, 0xff, random(256) as u8][random(5)];
            }
            match decode(frame, bytes.into()) {
                Ok(_) => accepted += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 1_000 && accepted > 1_000, "{refused} refused, {accepted} accepted");
}
