//! Clients that speak HTTP/2: one that keeps its rules, by the crate `h2`, and one whose every
//! frame is chosen.

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::{Proxy, Shaking, Upstream, Wire, millis, soon};

/// A connection of a client that keeps the rules.
pub(crate) struct Http2 {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Http2 {
    pub(crate) async fn connect(proxy: &Proxy) -> Self {
        let stream = soon("a connection", TcpStream::connect(proxy.address())).await;
        Self::over(stream.expect("the proxy listens"), &Builder::new()).await
    }

    /// One with a window of so many bytes for each stream, that of the connection being larger, and
    /// with little room for what it does not read.
    pub(crate) async fn connect_narrow(proxy: &Proxy, window: u32) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(8 * 1024).expect("a socket can be narrow");
        let stream = soon("a connection", socket.connect(proxy.address())).await;
        let mut settings = Builder::new();
        settings.initial_window_size(window).initial_connection_window_size(1 << 24);
        Self::over(stream.expect("the proxy listens"), &settings).await
    }

    /// One inside TLS.
    pub(crate) async fn connect_encrypted(proxy: &Proxy, client: &Shaking, name: &str) -> Self {
        Self::over(client.clone().speaking(b"h2").stream(proxy, name).await, &Builder::new()).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, settings: &Builder) -> Self {
        let (requests, connection) = soon("a handshake", settings.handshake(stream)).await.expect("a handshake");
        Self { requests, connection: tokio::spawn(connection) }
    }

    /// Begins a request whose body is still to come.
    pub(crate) async fn begin(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) -> Asked {
        self.ask(request(method, path, fields), false).await
    }

    /// A request without a body.
    pub(crate) async fn get(&mut self, path: &str) -> Asked {
        self.ask(request("GET", path, &[]), true).await
    }

    /// An extended CONNECT, once the proxy has said that it knows it.
    pub(crate) async fn websocket(&mut self, path: &str, fields: &[(&str, &str)]) -> Asked {
        let announced = async {
            while !self.requests.is_extended_connect_protocol_enabled() {
                tokio::time::sleep(millis(5)).await;
            }
        };
        soon("the proxy to announce extended CONNECT", announced).await;
        let mut request = request("CONNECT", path, &[&[("sec-websocket-version", "13")], fields].concat());
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        self.ask(request, false).await
    }

    pub(crate) async fn ask(&mut self, request: Request<()>, is_end: bool) -> Asked {
        let mut ready = soon("room for a stream", self.requests.clone().ready()).await.expect("the connection is open");
        let (response, sending) = ready.send_request(request, is_end).expect("a valid request");
        Asked { sending, response }
    }

    /// Whether a request is refused because the connection is about to end. One that is not gets no
    /// answer, and is taken back.
    pub(crate) async fn takes_nothing_new(&mut self) -> bool {
        let Ok(mut ready) = soon("an answer", self.requests.clone().ready()).await else { return true };
        let Ok((response, _)) = ready.send_request(request("GET", "/new", &[]), true) else { return true };
        matches!(tokio::time::timeout(millis(300), response).await, Ok(Err(_)))
    }

    /// Waits for the proxy to end the connection, which it does for `None` or this reason.
    pub(crate) async fn ended(self) -> Option<Reason> {
        drop(self.requests);
        let ended = soon("the connection to end", self.connection).await.expect("the task is not cancelled");
        ended.err().and_then(|error| error.reason())
    }

    /// Closes the connection without a word.
    pub(crate) fn vanish(self) {
        self.connection.abort();
    }
}

/// A request, as this client writes it.
pub(crate) fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let request = Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a method"));
    let request = request.uri(format!("http://chat.example.com{path}"));
    fields.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).expect("a request")
}

/// A stream whose request has begun.
pub(crate) struct Asked {
    pub(crate) sending: SendStream<Bytes>,
    pub(crate) response: ResponseFuture,
}

impl Asked {
    /// Sends a piece of the body, as far as there is room for it at a time.
    pub(crate) async fn send(&mut self, bytes: impl Into<Bytes>) {
        send(&mut self.sending, bytes.into()).await;
    }

    /// Ends the body.
    pub(crate) fn finish(&mut self) {
        self.sending.send_data(Bytes::new(), true).expect("the stream is open");
    }

    /// Takes the request back.
    pub(crate) fn reset(mut self, reason: Reason) {
        self.sending.send_reset(reason);
    }

    /// The head of the response.
    pub(crate) async fn answer(self) -> Answered {
        let response = soon("a response", self.response).await.expect("a response");
        let (head, body) = response.into_parts();
        Answered {
            sending: self.sending,
            status: head.status.as_u16(),
            fields: head.headers,
            body,
            unread: Bytes::new(),
        }
    }

    /// The text that `server` answers with on a connection of its own, as it comes.
    pub(crate) async fn answer_of(self, server: &Upstream, text: &str) -> String {
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream
            .send(format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}", text.len()))
            .await;
        self.answer().await.text().await
    }
}

/// A stream whose response has begun.
pub(crate) struct Answered {
    pub(crate) sending: SendStream<Bytes>,
    pub(crate) status: u16,
    pub(crate) fields: HeaderMap,
    body: RecvStream,
    unread: Bytes,
}

impl Answered {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().expect("tests are text"))
    }

    pub(crate) async fn send(&mut self, bytes: impl Into<Bytes>) {
        send(&mut self.sending, bytes.into()).await;
    }

    /// The next data; `None` at the end.
    pub(crate) async fn some(&mut self) -> Result<Option<Bytes>, h2::Error> {
        let Some(data) = soon("data or an end", self.body.data()).await else { return Ok(None) };
        let data = data?;
        self.body.flow_control().release_capacity(data.len()).expect("what was got may be released");
        Ok(Some(data))
    }

    /// The next so many bytes.
    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.unread).to_vec();
        while bytes.len() < length {
            bytes.extend(self.some().await.expect("no reset").expect("more data"));
        }
        self.unread = Bytes::from(bytes.split_off(length));
        bytes
    }

    /// Everything up to the end.
    pub(crate) async fn rest(&mut self) -> Result<Vec<u8>, h2::Error> {
        let mut rest = std::mem::take(&mut self.unread).to_vec();
        while let Some(data) = self.some().await? {
            rest.extend(data);
        }
        Ok(rest)
    }

    pub(crate) async fn text(&mut self) -> String {
        String::from_utf8(self.rest().await.expect("no reset")).expect("tests are text")
    }

    pub(crate) fn reset(mut self, reason: Reason) {
        self.sending.send_reset(reason);
    }
}

async fn send(sending: &mut SendStream<Bytes>, mut bytes: Bytes) {
    while !bytes.is_empty() {
        sending.reserve_capacity(bytes.len());
        if sending.capacity() == 0 {
            let capacity = std::future::poll_fn(|cx| sending.poll_capacity(cx));
            soon("room in the window", capacity).await.expect("the stream is open").expect("the stream is open");
        }
        let piece = bytes.split_to(sending.capacity().min(bytes.len()));
        sending.send_data(piece, false).expect("the stream is open");
    }
}

/// A connection on which every frame is chosen.
pub(crate) struct Frames {
    wire: Wire,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// A whole field list.
    pub(crate) fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Self {
        Self::new(HEADERS, END_HEADERS | flags, stream, fields_of(fields))
    }

    /// The usual request without a body.
    pub(crate) fn get(stream: u32, path: &str) -> Self {
        Self::headers(
            stream,
            END_STREAM,
            &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)],
        )
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("a short frame").to_be_bytes();
        [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes(), &self.payload].concat()
    }

    /// The code of an RST_STREAM or a GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }

    /// The status of the first response on a connection: the first field of its list.
    pub(crate) fn status(&self) -> u16 {
        const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        match self.payload[0] {
            index @ 0x88..=0x8e => INDEXED[usize::from(index - 0x88)],
            // A literal whose name is `:status`; three digits in Huffman's code, or as they are.
            _ => {
                let length = usize::from(self.payload[1] & 0x7F);
                let text = &self.payload[2..2 + length];
                if self.payload[1] & 0x80 == 0 {
                    return String::from_utf8_lossy(text).parse().expect("three digits");
                }
                let bits: String = text.iter().map(|byte| format!("{byte:08b}")).collect();
                digits(&bits)
            }
        }
    }
}

/// The three digits that `bits` begin with in the code of RFC 7541, appendix B.
fn digits(bits: &str) -> u16 {
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let short = u16::from_str_radix(&bits[at..at + 5], 2).expect("bits");
        let digit = if short < 3 { short } else { u16::from_str_radix(&bits[at..at + 6], 2).expect("bits") - 22 };
        at += if short < 3 { 5 } else { 6 };
        number = 10 * number + digit;
    }
    number
}

/// A field list, each field a literal that nobody remembers: what is in it is only the test's to
/// say.
pub(crate) fn fields_of(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            match text.len() {
                length @ 0..127 => block.push(u8::try_from(length).expect("it is short")),
                length => {
                    block.push(127);
                    let mut left = length - 127;
                    while left >= 128 {
                        block.push(u8::try_from(left % 128).expect("seven bits") | 0x80);
                        left /= 128;
                    }
                    block.push(u8::try_from(left).expect("seven bits"));
                }
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

impl Frames {
    /// A connection that has begun as it should.
    pub(crate) async fn connect(proxy: &Proxy) -> Self {
        let mut wire = proxy.connect().await;
        wire.send([PREFACE, &Frame::new(SETTINGS, 0, 0, []).bytes()].concat()).await;
        Self { wire }
    }

    pub(crate) async fn send(&mut self, frames: &[Frame]) {
        self.wire.send(frames.iter().flat_map(Frame::bytes).collect::<Vec<_>>()).await;
    }

    /// Sends what the other side may not want to hear to its end; whether it did.
    pub(crate) async fn try_send(&mut self, frames: &[Frame]) -> bool {
        self.wire.try_send(&frames.iter().flat_map(Frame::bytes).collect::<Vec<_>>()).await.is_ok()
    }

    /// The next frame of any kind; `None` when the connection ends.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let head = self.wire.try_exactly(9).await.ok()?;
        let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let length = usize::try_from(number(&head[..3])).expect("a length");
        let payload = self.wire.try_exactly(length).await.ok()?;
        Some(Frame { kind: head[3], flags: head[4], stream: number(&head[5..9]), payload })
    }

    /// The next frame that says what came of a stream or the connection; `None` when it ends first.
    pub(crate) async fn outcome(&mut self) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY) {
                return Some(frame);
            }
        }
    }
}
