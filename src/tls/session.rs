//! One TLS connection without its socket: records in, bytes out, and the other way round. Pure, but
//! for the clock and the randomness that rustls itself asks for.
//!
//! It is rustls' unbuffered connection, because the buffered one keeps what it has grown to: here
//! an idle connection holds two keys and no buffer. What has come of a record that is not whole is
//! kept, and given back with its last byte.

use std::fmt;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ServerConfig};

/// One end of a TLS connection.
pub struct Session {
    connection: Connection,
    /// Records that have not come to their end, as they came: rustls remembers where it is in them.
    partial: Vec<u8>,
    /// What has come before the handshake was done.
    shaken: usize,
    peer_has_closed: bool,
    has_closed: bool,
    /// Then rustls is asked nothing more.
    has_failed: bool,
}

enum Connection {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// Why a session has failed. What is to be told to the peer has been said already.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What rustls says of what the peer has sent.
    #[error(transparent)]
    Protocol(#[from] rustls::Error),
    /// It has failed before.
    #[error("failed before")]
    Before,
    /// More than any handshake needs.
    #[error("the handshake is longer than {} bytes", Session::HANDSHAKE_MAX)]
    TooLong,
}

/// What one look at what has come brought.
enum Turn {
    /// There may be more.
    Again,
    /// There is nothing but, perhaps, the beginning of a record.
    Rest,
    /// The peer says that it will send nothing more.
    Closed,
}

impl Session {
    /// Longest handshake of a peer: a chain of certificates, and much that is not needed.
    pub const HANDSHAKE_MAX: usize = 128 * 1024;

    /// The most that is sealed at once.
    pub const SEAL_MAX: usize = 64 * 1024;

    /// Room enough for what sealing [`Self::SEAL_MAX`] makes of it, an update of keys included.
    pub const SEALED_MAX: usize = Self::SEAL_MAX + 4 * Self::RECORD_OVERHEAD + 1024;

    /// The longest record, with its header (RFC 8446, section 5.2; RFC 5246 allows some more).
    pub const RECORD_MAX: usize = 5 + 16 * 1024 + 2048;

    /// What a record is longer than its bytes, at most: header, explicit nonce, type and tag.
    const RECORD_OVERHEAD: usize = 5 + 8 + 1 + 16;

    /// The end of one who was connected to.
    ///
    /// # Errors
    /// When rustls cannot work with `config`.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self::new(Connection::Server(UnbufferedServerConnection::new(config)?)))
    }

    /// The end of one who has connected to `name`.
    ///
    /// # Errors
    /// When rustls cannot work with `config`.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, rustls::Error> {
        Ok(Self::new(Connection::Client(UnbufferedClientConnection::new(config, name)?)))
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            partial: Vec::new(),
            shaken: 0,
            peer_has_closed: false,
            has_closed: false,
            has_failed: false,
        }
    }

    /// Takes in what stands in `buffer` behind the [`Self::kept`] bytes, which are left for those
    /// that were kept: `fresh` bytes that have come. Gives what they say to `plain`, and appends
    /// to `answer` what is to be sent in return.
    ///
    /// # Errors
    /// When the peer makes no sense or cannot be trusted; `answer` may have the alert that says so.
    pub fn open(
        &mut self,
        buffer: &mut [u8],
        fresh: usize,
        plain: impl FnMut(&[u8]),
        answer: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        if self.has_failed {
            return Err(Failure::Before);
        }
        if self.is_handshaking() {
            self.shaken = self.shaken.saturating_add(fresh);
            if self.shaken > Self::HANDSHAKE_MAX {
                self.has_failed = true;
                return Err(Failure::TooLong);
            }
        }
        let kept = self.partial.len();
        buffer[..kept].copy_from_slice(&self.partial);
        let records = &mut buffer[..kept + fresh];
        let done = self.process(records, plain, answer)?;
        if self.peer_has_closed || done == records.len() {
            self.partial = Vec::new(); // An idle connection holds no buffer.
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(&records[done..]);
        }
        Ok(())
    }

    /// How many bytes were kept that did not come to the end of a record.
    pub fn kept(&self) -> usize {
        self.partial.len()
    }

    /// Handles all that `records` has; returns how much of it is done with.
    fn process(
        &mut self,
        records: &mut [u8],
        mut plain: impl FnMut(&[u8]),
        answer: &mut Vec<u8>,
    ) -> Result<usize, rustls::Error> {
        let mut done = 0;
        loop {
            let (discard, turn) = self.turn(&mut records[done..], &mut plain, answer);
            done += discard;
            match turn {
                Ok(Turn::Again) => {}
                Ok(Turn::Closed) => self.peer_has_closed = true,
                Ok(Turn::Rest) => return Ok(done),
                Err(error) => {
                    self.has_failed = true;
                    // What the peer is to be told comes first when rustls is asked once more.
                    while self.common().wants_write() {
                        let _ = self.turn(&mut records[done..], &mut plain, answer);
                    }
                    return Err(error);
                }
            }
        }
    }

    fn turn(
        &mut self,
        records: &mut [u8],
        plain: &mut impl FnMut(&[u8]),
        answer: &mut Vec<u8>,
    ) -> (usize, Result<Turn, rustls::Error>) {
        match &mut self.connection {
            Connection::Server(server) => take(server.process(records), plain, answer),
            Connection::Client(client) => take(client.process(records), plain, answer),
        }
    }

    /// Seals `bytes`, at most [`Self::SEAL_MAX`], into `records`, which has room for
    /// [`Self::SEALED_MAX`]; returns how long they are.
    ///
    /// # Errors
    /// When the session has failed, or has said goodbye.
    pub fn seal(&mut self, bytes: &[u8], records: &mut [u8]) -> Result<usize, rustls::Error> {
        if self.has_closed || self.has_failed {
            return Err(rustls::Error::General("nothing can be sent behind the end".into()));
        }
        self.write(Write::Bytes(bytes), records)
    }

    /// Says that nothing more will be sent; returns how long that is in `records`. Once: 0 after that.
    ///
    /// # Errors
    /// When the session has failed.
    pub fn close(&mut self, records: &mut [u8]) -> Result<usize, rustls::Error> {
        if self.has_closed || self.has_failed {
            return Ok(0);
        }
        self.has_closed = true;
        self.write(Write::Goodbye, records)
    }

    fn write(&mut self, write: Write<'_>, records: &mut [u8]) -> Result<usize, rustls::Error> {
        let (done, written) = match &mut self.connection {
            Connection::Server(server) => put(server, write, &mut self.partial, records),
            Connection::Client(client) => put(client, write, &mut self.partial, records),
        };
        self.partial.drain(..done);
        written
    }

    /// Whether it is not yet known to whom one speaks.
    pub fn is_handshaking(&self) -> bool {
        self.common().is_handshaking()
    }

    /// Whether the peer has said that it will send nothing more.
    pub fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// What was agreed on.
    pub fn common(&self) -> &CommonState {
        match &self.connection {
            Connection::Server(server) => server,
            Connection::Client(client) => client,
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("partial", &self.partial.len()).finish_non_exhaustive()
    }
}

/// What is to be written.
#[derive(Clone, Copy)]
enum Write<'a> {
    Bytes(&'a [u8]),
    Goodbye,
}

/// Handles what rustls has found.
fn take<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: &mut impl FnMut(&[u8]),
    answer: &mut Vec<u8>,
) -> (usize, Result<Turn, rustls::Error>) {
    let mut discard = status.discard;
    let turn = match status.state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Turn::Again),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let at = answer.len();
            if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
                answer.resize(at + size.required_size, 0);
                // There is room now, and it was not encoded before.
                let _ = data.encode(&mut answer[at..]);
            }
            Ok(Turn::Again)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done(); // It stands in `answer`, which whoever asked will send.
            Ok(Turn::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Turn::Closed),
        // Early data is never offered and never taken: it could be replayed.
        Ok(ConnectionState::ReadEarlyData(_)) => Err(rustls::Error::General("early data".into())),
        Ok(_) => Ok(Turn::Rest),
        Err(error) => Err(error),
    };
    (discard, turn)
}

/// Writes to `records`, before it what rustls itself has to say. `partial` has come, and is no whole
/// record. Returns how much of that is done with, and how much was written.
fn put<C: Unbuffered>(
    connection: &mut C,
    write: Write<'_>,
    partial: &mut [u8],
    records: &mut [u8],
) -> (usize, Result<usize, rustls::Error>) {
    let (mut done, mut written) = (0, 0);
    loop {
        let UnbufferedStatus { discard, state } = connection.process(&mut partial[done..]);
        done += discard;
        let records = &mut records[written..];
        let put = match (state, write) {
            (Ok(ConnectionState::WriteTraffic(mut traffic)), Write::Bytes(bytes)) => {
                return (
                    done,
                    traffic.encrypt(bytes, records).map(|put| written + put).map_err(|error| unsealed(&error)),
                );
            }
            (Ok(ConnectionState::WriteTraffic(mut traffic)), Write::Goodbye) => {
                return (
                    done,
                    traffic.queue_close_notify(records).map(|put| written + put).map_err(|error| unsealed(&error)),
                );
            }
            (Ok(ConnectionState::EncodeTlsData(mut data)), _) => match data.encode(records) {
                Ok(put) => put,
                Err(error) => return (done, Err(rustls::Error::General(error.to_string()))),
            },
            (Ok(ConnectionState::TransmitTlsData(data)), _) => {
                data.done(); // It stands in `records`.
                0
            }
            (Ok(_), Write::Goodbye) => return (done, Ok(written)), // Nobody to say it to.
            (Ok(_), Write::Bytes(_)) => return (done, Err(rustls::Error::HandshakeNotComplete)),
            (Err(error), _) => return (done, Err(error)),
        };
        written += put;
    }
}

fn unsealed(error: &EncryptError) -> rustls::Error {
    match error {
        EncryptError::EncryptExhausted => rustls::Error::EncryptError,
        EncryptError::InsufficientSize(_) => rustls::Error::General(error.to_string()),
    }
}

/// What both ends have in common.
trait Unbuffered {
    type Data;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

#[cfg(test)]
mod tests;
