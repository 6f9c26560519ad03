//! One connection to a server: bytes in and out, and whole frames.

use bytes::{Bytes, BytesMut};
use proto::frame::next_frame;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest reply that is taken; a list of a million names fits.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// What a connection reads and writes through.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection.
pub(super) struct Link {
    reader: tokio::io::ReadHalf<Box<dyn Stream>>,
    writer: tokio::io::WriteHalf<Box<dyn Stream>>,
    input: BytesMut,
    /// What is still to be sent.
    pub(super) output: BytesMut,
    /// The server's address, as it was given.
    pub(super) server: String,
}

/// What a connection did.
pub(super) enum Moved {
    Frame(Bytes),
    Sent,
}

impl Link {
    pub(super) fn new(stream: Box<dyn Stream>, server: &str) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let server = server.to_owned();
        Self { reader, writer, input: BytesMut::new(), output: BytesMut::new(), server }
    }

    /// Sends some of what is to be sent, or gives the next frame. Loses nothing when dropped.
    ///
    /// # Errors
    /// Why the connection is lost.
    pub(super) async fn advance(&mut self) -> Result<Moved, String> {
        loop {
            let frame = next_frame(&mut self.input, FRAME_BYTES_MAX).map_err(|e| e.to_string())?;
            if let Some(frame) = frame {
                return Ok(Moved::Frame(frame));
            }
            self.input.reserve(16 << 10);
            tokio::select! {
                biased;
                sent = self.writer.write_buf(&mut self.output), if !self.output.is_empty() => {
                    return match sent {
                        Ok(0) => Err("the server hung up".to_owned()),
                        Ok(_) => {
                            // TLS keeps what it has not been told to send.
                            if self.output.is_empty() {
                                self.writer.flush().await.map_err(|e| e.to_string())?;
                            }
                            Ok(Moved::Sent)
                        }
                        Err(error) => Err(error.to_string()),
                    };
                }
                read = self.reader.read_buf(&mut self.input) => match read {
                    Ok(0) => return Err("the server hung up".to_owned()),
                    Ok(_) => {}
                    Err(error) => return Err(error.to_string()),
                },
            }
        }
    }

    /// Sends everything and gives the next frame.
    pub(super) async fn frame(&mut self) -> Result<Bytes, String> {
        loop {
            if let Moved::Frame(frame) = self.advance().await? {
                return Ok(frame);
            }
        }
    }
}
