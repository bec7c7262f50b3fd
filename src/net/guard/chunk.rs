//! The chunked coding (RFC 9112 §7.1), scanned without copying: only its one strict spelling passes.

use super::Violation;

/// A chunk size has at most this many hexadecimal digits: below 2^60, so no sum overflows.
const SIZE_DIGITS_MAX: u8 = 15;
/// A chunk's extensions are at most this long; hyper drops them.
const EXTENSION_BYTES_MAX: u16 = 256;
/// All trailer fields together are at most this long.
const TRAILER_BYTES_MAX: u32 = 16 * 1024;

/// Where in the coding the next byte is.
#[derive(Debug, Clone, Copy, Default)]
enum Place {
    #[default]
    SizeStart,
    Size,
    Extension(u16),
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    Trailer,
    TrailerLineFeed,
    EndLineFeed,
}

/// A scanner over one chunked body.
#[derive(Debug, Default)]
pub(super) struct ChunkScan {
    place: Place,
    digits: u8,
    /// The size that is being read, then what is left of the chunk.
    size: u64,
    trailer_bytes: u32,
}

impl ChunkScan {
    /// Scans `bytes` up to the end of the body. Returns how many belong to it and whether it ended.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), Violation> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let Place::Data = self.place {
                let length = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.size -= length as u64;
                at += length;
                if self.size == 0 {
                    self.place = Place::DataReturn;
                }
                continue;
            }
            at += 1;
            if self.step(byte)? {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Takes one byte outside of a chunk's data; true at the end of the body.
    fn step(&mut self, byte: u8) -> Result<bool, Violation> {
        self.place = match (self.place, byte) {
            (Place::SizeStart | Place::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte)?,
            (Place::Size, b';') => Place::Extension(0),
            (Place::Size | Place::Extension(_), b'\r') => Place::SizeLineFeed,
            (Place::Extension(length), b'\t' | b' '..=b'~') if length < EXTENSION_BYTES_MAX => {
                Place::Extension(length + 1)
            }
            (Place::SizeLineFeed, b'\n') if self.size == 0 => Place::TrailerStart,
            (Place::SizeLineFeed, b'\n') => Place::Data,
            (Place::DataReturn, b'\r') => Place::DataLineFeed,
            (Place::DataLineFeed, b'\n') => {
                self.digits = 0;
                Place::SizeStart
            }
            (Place::TrailerStart, b'\r') => Place::EndLineFeed,
            (Place::EndLineFeed, b'\n') => return Ok(true),
            // A name first: a folded line would begin with white space (§5.2).
            (Place::TrailerStart, b'!'..=b'~') | (Place::Trailer, b'\t' | b' '..=b'~' | 0x80..) => self.trailer()?,
            (Place::Trailer, b'\r') => Place::TrailerLineFeed,
            (Place::TrailerLineFeed, b'\n') => Place::TrailerStart,
            _ => return Err(Violation::Framing),
        };
        Ok(false)
    }

    fn digit(&mut self, byte: u8) -> Result<Place, Violation> {
        let value = char::from(byte).to_digit(16).ok_or(Violation::Framing)?;
        self.size = if self.digits == 0 { 0 } else { self.size << 4 } | u64::from(value);
        self.digits += 1;
        if self.digits > SIZE_DIGITS_MAX { Err(Violation::Framing) } else { Ok(Place::Size) }
    }

    fn trailer(&mut self) -> Result<Place, Violation> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX { Err(Violation::HeadTooLarge) } else { Ok(Place::Trailer) }
    }
}
