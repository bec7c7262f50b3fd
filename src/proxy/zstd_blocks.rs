//! Where the blocks of a zstd stream end (RFC 8878 §3.1). A block can be read, by whoever has a part of it, before its end;
//! a decoder gives it out at its end. So what is not whole must not pass before it was decoded.

/// §3.1.1.
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// The last three bytes of the magic of a skippable frame (§3.1.2); the first is 0x50 to 0x5f.
const SKIPPABLE: [u8; 3] = [0x2A, 0x4D, 0x18];

/// Whether a body begins with a frame; `None`: too little of it is there.
pub(super) fn begins(body: &[u8]) -> Option<bool> {
    let is_frame = body.iter().zip(MAGIC).all(|(is, magic)| *is == magic);
    let is_skippable = body.first().is_none_or(|first| first & 0xf0 == 0x50)
        && body.iter().skip(1).zip(SKIPPABLE).all(|(is, magic)| *is == magic);
    match is_frame || is_skippable {
        true if body.len() < MAGIC.len() => None,
        whole => Some(whole),
    }
}

/// See the module.
pub(super) struct Blocks {
    expected: Expected,
    /// What came of it.
    head: Vec<u8>,
    /// To pass over before it.
    skip: u64,
    /// It is the content of a skippable frame.
    skippable: bool,
    has_checksum: bool,
    read: u64,
    /// Up to here everything is whole.
    whole: u64,
}

#[derive(Clone, Copy)]
enum Expected {
    Magic,
    SkippableSize,
    Descriptor,
    Block,
}

/// No zstd.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoFrame;

impl Blocks {
    pub(super) fn new() -> Self {
        Self {
            expected: Expected::Magic,
            head: Vec::new(),
            skip: 0,
            skippable: false,
            has_checksum: false,
            read: 0,
            whole: 0,
        }
    }

    /// Reads on.
    pub(super) fn read(&mut self, mut part: &[u8]) -> Result<(), NoFrame> {
        while !part.is_empty() {
            let skipped = part.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.pass(&mut part, skipped);
            self.skip -= skipped as u64;
            // What no decoder gives out (§3.1.2) needs none.
            if self.skip == 0 || self.skippable {
                self.mark();
            }
            if self.skip > 0 {
                break;
            }
            self.skippable = false;
            let wanted = match self.expected {
                Expected::Magic | Expected::SkippableSize => 4,
                Expected::Descriptor => 1,
                Expected::Block => 3,
            };
            let taken = part.len().min(wanted - self.head.len());
            self.head.extend_from_slice(&part[..taken]);
            self.pass(&mut part, taken);
            if self.head.len() == wanted {
                let head = std::mem::take(&mut self.head);
                self.understand(&head)?;
            }
        }
        if self.skip == 0 {
            self.mark();
        }
        Ok(())
    }

    /// How many bytes of the stream can be decoded from themselves and what was before them.
    pub(super) fn whole(&self) -> u64 {
        self.whole
    }

    fn pass(&mut self, part: &mut &[u8], count: usize) {
        *part = &part[count..];
        self.read += count as u64;
    }

    /// What was passed over has ended.
    fn mark(&mut self) {
        if self.head.is_empty() {
            self.whole = self.read;
        }
    }

    fn understand(&mut self, head: &[u8]) -> Result<(), NoFrame> {
        self.expected = match (self.expected, head) {
            (Expected::Magic, head) if *head == MAGIC => Expected::Descriptor,
            (Expected::Magic, [first, rest @ ..]) if first & 0xf0 == 0x50 && *rest == SKIPPABLE => {
                Expected::SkippableSize
            }
            (Expected::SkippableSize, &[a, b, c, d]) => {
                self.skip = u64::from(u32::from_le_bytes([a, b, c, d]));
                self.skippable = true;
                Expected::Magic
            }
            (Expected::Descriptor, &[descriptor]) => {
                self.has_checksum = descriptor & 0x04 != 0;
                self.skip = header_bytes(descriptor);
                Expected::Block
            }
            (Expected::Block, &[a, b, c]) => {
                let block = u32::from_le_bytes([a, b, c, 0]);
                let (last, kind, size) = (block & 1 != 0, block >> 1 & 3, u64::from(block >> 3));
                // One byte that is repeated (§3.1.1.2.2).
                self.skip = if kind == 1 { 1 } else { size };
                if last {
                    self.skip += if self.has_checksum { 4 } else { 0 };
                }
                if last { Expected::Magic } else { Expected::Block }
            }
            _ => return Err(NoFrame),
        };
        Ok(())
    }
}

/// The length of the frame's header after its descriptor (§3.1.1.1).
fn header_bytes(descriptor: u8) -> u64 {
    let single = descriptor & 0x20 != 0;
    let content_size = match descriptor >> 6 {
        0 => u64::from(single),
        flag => 1 << flag,
    };
    let dictionary = match descriptor & 3 {
        3 => 4,
        id => u64::from(id),
    };
    u64::from(!single) + dictionary + content_size
}
