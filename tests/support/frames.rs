//! HTTP/2 by hand (RFC 9113 §4, §6; RFC 7541): for what no HTTP/2 library would send.

use std::time::Duration;

use super::agent::{Agent, Tls, Wire};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
/// No type that any RFC defines.
pub(crate) const UNKNOWN: u8 = 0xee;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
const INITIAL_WINDOW: u16 = 4;
const HEAD_BYTES: usize = 9;

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A field that is neither indexed nor Huffman-coded.
pub(crate) fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name.as_bytes(), value] {
        field.extend(integer(text.len(), 7));
        field.extend_from_slice(text);
    }
    field
}

/// An integer with a prefix of so many bits, all others zero (RFC 7541 §5.1).
pub(crate) fn integer(value: usize, prefix_bits: u32) -> Vec<u8> {
    let most = (1_usize << prefix_bits) - 1;
    if value < most {
        return vec![u8::try_from(value).unwrap()];
    }
    let (mut bytes, mut rest) = (vec![u8::try_from(most).unwrap()], value - most);
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// The block of a request without further fields: `:method` and `:scheme` from the static table.
pub(crate) fn request(method: &str, host: &str, path: &str) -> Vec<u8> {
    let method = if method == "GET" { 0x82 } else { 0x83 };
    let mut block = vec![method, 0x87, 0x01];
    block.extend(integer(host.len(), 7));
    block.extend_from_slice(host.as_bytes());
    block.push(0x04);
    block.extend(integer(path.len(), 7));
    block.extend_from_slice(path.as_bytes());
    block
}

/// A request that ends with its head.
pub(crate) fn get(stream: u32, host: &str, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", host, path))
}

/// The number of a client's stream.
pub(crate) fn stream(number: usize) -> u32 {
    u32::try_from(2 * number + 1).unwrap()
}

pub(crate) fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

pub(crate) fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// The settings frame that gives new streams so much window.
pub(crate) fn initial_window(bytes: u32) -> Vec<u8> {
    let value = [&INITIAL_WINDOW.to_be_bytes()[..], &bytes.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &value)
}

/// How a connection went on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Closed, after a GOAWAY with this code where one came.
    Ended(Option<u32>),
    /// The peer reads no more of it, and has not closed it.
    Stalled,
    /// All was read, and it is open.
    Open,
}

/// A hostile HTTP/2 connection inside a tunnel.
pub(crate) struct Flooder {
    pub(crate) wire: Wire<Tls>,
}

impl Flooder {
    /// A tunnel, TLS with `h2`, and nothing of HTTP/2 yet.
    pub(crate) fn silent(agent: &Agent, host: &str) -> Self {
        let wire = agent.tunnel_with(host, 443, host, &["h2"]).unwrap();
        Self { wire }
    }

    /// The same after the preface, with these settings.
    pub(crate) fn with(agent: &Agent, host: &str, settings: &[u8]) -> Self {
        let mut flooder = Self::silent(agent, host);
        flooder.wire.send_bytes(&[PREFACE, settings].concat());
        flooder
    }

    pub(crate) fn new(agent: &Agent, host: &str) -> Self {
        Self::with(agent, host, &frame(SETTINGS, 0, 0, &[]))
    }

    /// Sends all of it without reading, as long as the peer takes it.
    pub(crate) fn pour(&mut self, bytes: &[u8], patience: Duration) -> bool {
        use std::io::Write as _;
        self.wire.stall_after(patience);
        self.wire.stream.write_all(bytes).and_then(|()| self.wire.stream.flush()).is_ok()
    }

    /// The next frame: kind, flags, stream, payload; `None` at the end of the connection.
    pub(crate) fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let head = self.wire.try_exactly(HEAD_BYTES)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some((head[3], head[4], stream, self.wire.try_exactly(length)?))
    }

    /// The next frame that `wanted` holds for; `None` at the end of the connection.
    pub(crate) fn until(&mut self, wanted: impl Fn(u8, u8, u32) -> bool) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            let next = self.next()?;
            if wanted(next.0, next.1, next.2) {
                return Some(next);
            }
        }
    }

    /// Sends a flood and then, where the peer took it, a PING: what came of it.
    pub(crate) fn flood(&mut self, bytes: &[u8], patience: Duration) -> Fate {
        let token = *b"are you?";
        let taken = self.pour(bytes, patience) && self.pour(&frame(PING, 0, 0, &token), patience);
        let mut goaway = None;
        // What was sent before we look is read in any case; a peer that reads no more says nothing new.
        self.wire.stream.sock.set_read_timeout(Some(if taken { super::PATIENCE } else { patience })).unwrap();
        loop {
            match self.wire.some() {
                Ok(0) => return Fate::Ended(goaway),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    assert!(!taken, "neither an end nor an answer");
                    return Fate::Stalled;
                }
                Err(_) => return Fate::Ended(goaway),
            }
            while let Some((kind, flags, payload)) = self.parsed() {
                match kind {
                    GOAWAY => goaway = payload.get(4..8).map(|code| u32::from_be_bytes(code.try_into().unwrap())),
                    PING if flags == ACK && payload == token && taken => return Fate::Open,
                    _ => {}
                }
            }
        }
    }

    /// A frame out of what has been read.
    fn parsed(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let ahead = &mut self.wire.ahead;
        let head = ahead.get(..HEAD_BYTES)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let payload = ahead.get(HEAD_BYTES..HEAD_BYTES + length)?.to_vec();
        ahead.drain(..HEAD_BYTES + length);
        Some((kind, flags, payload))
    }
}
