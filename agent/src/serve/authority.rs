//! The `:authority` of calls on the unix socket.
//!
//! gRPC's C core (Python, C++, Ruby, PHP) sends the socket's path there, percent-encoded: `run%2Fpurge-agent%2Fagent.sock`. The HTTP/2 library
//! takes no percent sign in an authority (RFC 3986 allows one) and answers with RST_STREAM, before anything of the agent sees the call. The
//! agent looks at no authority: who calls is known from the socket. So each percent sign there becomes a hyphen on its way in. That keeps
//! the length, so nothing has to be held back or put together again.
//!
//! [`Authority`] follows HTTP/2's frames (RFC 9113, section 4) and the fields of header blocks (RFC 7541, section 6) byte by byte, in constant
//! memory. It decodes nothing: an authority is found where its name is the static index 1, or spelled out, and where it is not
//! Huffman-coded; the C core's is spelled out. Anything else passes as it is.

/// Bytes with which a client's connection begins.
const PREFACE_BYTES: u32 = 24;
/// Bytes before each frame.
const HEAD_BYTES: usize = 9;
/// Types of frames that carry headers.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// Flags of frames.
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Bytes of a priority.
const PRIORITY_BYTES: u32 = 5;

const NAME: &[u8] = b":authority";
/// The name's place in HPACK's static table.
const NAME_INDEX: u32 = 1;

/// What a percent sign becomes.
const INSTEAD: u8 = b'-';

/// Where in the bytes of a connection the next one stands.
#[derive(Debug)]
enum At {
    /// In what every connection begins with; the number of its bytes that are left.
    Preface(u32),
    /// In the bytes before a frame; how many of them have come.
    Head([u8; HEAD_BYTES], usize),
    /// At the length of the padding.
    PadLength { left: u32, priority: bool },
    /// In what says nothing here: `left` bytes; then come `fields` bytes of a header block, and `after` bytes more.
    Skip { left: u32, fields: u32, after: u32 },
    /// In a header block: `left` bytes of the frame belong to it, and `after` bytes follow them.
    Fields { left: u32, after: u32 },
}

/// Where in a header block the next byte stands.
#[derive(Debug, Clone, Copy)]
enum Field {
    /// At the beginning of a field.
    Begin,
    /// In the further bytes of an index, or of a size: nothing follows it.
    Index,
    /// In the further bytes of the index of a name: its value follows.
    NameIndex,
    /// At the length of a name that is spelled out, or of a value.
    Length(Text),
    /// In the further bytes of a length.
    LongLength {
        text: Text,
        coded: bool,
        sum: u32,
        shift: u32,
    },
    /// In a name, or a value; the number of its bytes that are left.
    Text { text: Text, coded: bool, left: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// A name, and how many of its bytes are those of `:authority`; none: it is another.
    Name(Option<usize>),
    /// A value: of an authority, or of something else.
    Value { of_authority: bool },
}

/// What a connection has brought so far, as far as that says where an authority is.
#[derive(Debug)]
pub struct Authority {
    at: At,
    field: Field,
    /// The header block ends with the frame.
    ends: bool,
}

impl Default for Authority {
    fn default() -> Self {
        Self {
            at: At::Preface(PREFACE_BYTES),
            field: Field::Begin,
            ends: false,
        }
    }
}

impl Authority {
    /// Changes the next bytes of a connection where they are a percent sign in an authority.
    pub fn pass(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let skipped = self.skip(bytes.len());
            let Some(rest) = bytes.get_mut(skipped..) else {
                return;
            };
            bytes = rest;
            if skipped > 0 {
                continue;
            }
            let Some((byte, rest)) = bytes.split_first_mut() else {
                return;
            };
            self.next(byte);
            bytes = rest;
        }
    }

    /// How many of the next bytes say nothing.
    fn skip(&mut self, most: usize) -> usize {
        let At::Skip { left, fields, after } = &mut self.at else {
            return 0;
        };
        let take = u32::try_from(most).unwrap_or(u32::MAX).min(*left);
        *left = left.saturating_sub(take);
        if *left == 0 {
            self.at = match (*fields, *after) {
                (0, 0) => At::Head([0; HEAD_BYTES], 0),
                (0, after) => At::Skip {
                    left: after,
                    fields: 0,
                    after: 0,
                },
                (left, after) => At::Fields { left, after },
            };
        }
        take as usize
    }

    fn next(&mut self, byte: &mut u8) {
        match &mut self.at {
            At::Preface(left) => {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.at = At::Head([0; HEAD_BYTES], 0);
                }
            }
            At::Head(head, come) => {
                if let Some(place) = head.get_mut(*come) {
                    *place = *byte;
                }
                *come = come.saturating_add(1);
                if *come >= HEAD_BYTES {
                    let head = *head;
                    self.begin(head);
                }
            }
            At::PadLength { left, priority } => {
                let (left, priority) = (*left, *priority);
                self.enter(left.saturating_sub(1), priority, u32::from(*byte));
            }
            // `skip` has passed all of it.
            At::Skip { .. } => self.at = At::Head([0; HEAD_BYTES], 0),
            At::Fields { left, after } => {
                *left = left.saturating_sub(1);
                let (left, after) = (*left, *after);
                self.field = self.field.after(byte);
                if left == 0 {
                    self.leave(after);
                }
            }
        }
    }

    /// A frame begins.
    fn begin(&mut self, head: [u8; HEAD_BYTES]) {
        let [a, b, c, kind, flags, ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        match kind {
            HEADERS | CONTINUATION => {
                if kind == HEADERS {
                    self.field = Field::Begin;
                }
                self.ends = flags & END_HEADERS != 0;
                let has = |flag| kind == HEADERS && flags & flag != 0;
                match has(PADDED) && length > 0 {
                    true => {
                        self.at = At::PadLength {
                            left: length,
                            priority: has(PRIORITY),
                        }
                    }
                    false => self.enter(length, has(PRIORITY), 0),
                }
            }
            _ => {
                self.at = At::Skip {
                    left: length,
                    fields: 0,
                    after: 0,
                }
            }
        }
        if length == 0 {
            self.leave(0);
        }
    }

    /// The rest of a frame of headers begins: a priority, a part of a header block, padding.
    fn enter(&mut self, left: u32, has_priority: bool, padding: u32) {
        let priority = if has_priority { PRIORITY_BYTES.min(left) } else { 0 };
        let fields = left.saturating_sub(priority).saturating_sub(padding);
        let after = left.saturating_sub(priority).saturating_sub(fields);
        self.at = match (priority, fields) {
            (0, 0) => At::Skip {
                left: after,
                fields: 0,
                after: 0,
            },
            (0, left) => At::Fields { left, after },
            (left, fields) => At::Skip { left, fields, after },
        };
        if left == 0 {
            self.leave(0);
        }
    }

    /// The frame's part of a header block is over.
    fn leave(&mut self, after: u32) {
        if self.ends {
            self.field = Field::Begin;
        }
        self.at = match after {
            0 => At::Head([0; HEAD_BYTES], 0),
            left => At::Skip {
                left,
                fields: 0,
                after: 0,
            },
        };
    }
}

impl Field {
    /// Where the byte after this one stands.
    fn after(self, byte: &mut u8) -> Self {
        let is_last = *byte & 0x80 == 0;
        match self {
            Self::Begin => Self::beginning(*byte),
            Self::Index if is_last => Self::Begin,
            Self::Index => Self::Index,
            Self::NameIndex if is_last => Self::Length(Text::Value { of_authority: false }),
            Self::NameIndex => Self::NameIndex,
            Self::Length(text) => {
                let coded = *byte & 0x80 != 0;
                match u32::from(*byte & 0x7f) {
                    0x7f => Self::LongLength {
                        text,
                        coded,
                        sum: 0x7f,
                        shift: 0,
                    },
                    left => Self::text(text, coded, left),
                }
            }
            Self::LongLength {
                text,
                coded,
                sum,
                shift,
            } => {
                let more = u32::from(*byte & 0x7f).checked_shl(shift).unwrap_or(u32::MAX);
                let sum = sum.saturating_add(more);
                match is_last {
                    true => Self::text(text, coded, sum),
                    false => Self::LongLength {
                        text,
                        coded,
                        sum,
                        shift: shift.saturating_add(7),
                    },
                }
            }
            Self::Text { text, coded, left } => {
                let text = text.after(byte, coded);
                Self::text(text, coded, left.saturating_sub(1))
            }
        }
    }

    /// After the first byte of a field (RFC 7541, sections 6.1 to 6.3).
    fn beginning(byte: u8) -> Self {
        let named = |index: u32, most: u32| match index {
            0 => Self::Length(Text::Name(Some(0))),
            index if index == most => Self::NameIndex,
            index => Self::Length(Text::Value {
                of_authority: index == NAME_INDEX,
            }),
        };
        let in_whole = |most: u8| match byte & most == most {
            true => Self::Index,
            false => Self::Begin,
        };
        match byte {
            0x80.. => in_whole(0x7f),
            0x40.. => named(u32::from(byte & 0x3f), 0x3f),
            0x20.. => in_whole(0x1f),
            _ => named(u32::from(byte & 0xf), 0xf),
        }
    }

    /// A text, and how many bytes of it are left.
    fn text(text: Text, coded: bool, left: u32) -> Self {
        match (left, text) {
            (0, Text::Name(same)) => {
                let of_authority = same == Some(NAME.len());
                Self::Length(Text::Value { of_authority })
            }
            (0, Text::Value { .. }) => Self::Begin,
            (left, text) => Self::Text { text, coded, left },
        }
    }
}

impl Text {
    /// After one more byte, which is changed where that has to be.
    fn after(self, byte: &mut u8, coded: bool) -> Self {
        match self {
            Self::Name(same) => {
                let same = same.filter(|n| !coded && NAME.get(*n) == Some(byte));
                Self::Name(same.map(|n| n.saturating_add(1)))
            }
            Self::Value { of_authority } => {
                if of_authority && !coded && *byte == b'%' {
                    *byte = INSTEAD;
                }
                self
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        let head = [length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        [&head, payload].concat()
    }

    fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
        let text = |t: &[u8]| [&[t.len() as u8], t].concat();
        [vec![0x40], text(name), text(value)].concat()
    }

    /// A call as gRPC's C core makes it, with the authority in several forms.
    fn call(spelled: &[u8], indexed: &[u8]) -> Vec<u8> {
        let mut block = field(b":path", b"/purge.v1.PurgeAgent/%2F");
        block.extend(field(b":authority", spelled));
        block.extend([0x41, indexed.len() as u8]);
        block.extend(indexed);
        block.extend([0x83, 0x86, 0xff, 0x01, 0x3f, 0x80, 0x01]);
        block.extend(field(b"user-agent", b"100%"));
        let (first, rest) = block.split_at(40);
        let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        all.extend(frame(4, 0, b"%%%%%%"));
        let padded = [&[3], &[0; 5][..], first, b"%%%"].concat();
        all.extend(frame(HEADERS, PADDED | PRIORITY, &padded));
        all.extend(frame(CONTINUATION, END_HEADERS, rest));
        all.extend(frame(0, 1, b"data with \x40\x0a:authority\x02%%"));
        all.extend(frame(HEADERS, END_HEADERS, &field(b":authority", spelled)));
        all
    }

    fn passed(bytes: &[u8], pieces: &[usize]) -> Vec<u8> {
        let mut all = bytes.to_vec();
        let (mut authority, mut at) = (Authority::default(), 0usize);
        for piece in pieces.iter().chain([&usize::MAX]) {
            let end = at.max(at.saturating_add(*piece).min(all.len()));
            authority.pass(&mut all[at..end]);
            at = end;
        }
        all
    }

    #[test]
    fn percent_signs_of_an_authority_become_hyphens_and_nothing_else_changes() {
        let sent = call(b"run%2Fpurge-agent%2Fagent.sock", b"a%20b");
        let expected = call(b"run-2Fpurge-agent-2Fagent.sock", b"a-20b");
        assert_eq!(passed(&sent, &[]), expected);
    }

    proptest! {
        #[test]
        fn the_pieces_that_bytes_come_in_change_nothing(pieces in proptest::collection::vec(0usize..40, 0..40)) {
            let sent = call(b"run%2Fagent.sock", b"%");
            prop_assert_eq!(passed(&sent, &pieces), call(b"run-2Fagent.sock", b"-"));
        }

        #[test]
        fn no_bytes_make_it_panic_and_only_percent_signs_change(
            mut bytes: Vec<u8>,
            pieces in proptest::collection::vec(0usize..40, 0..9),
        ) {
            bytes.splice(0..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            let after = passed(&bytes, &pieces);
            for (before, after) in bytes.iter().zip(&after) {
                prop_assert!(before == after || (*before == b'%' && *after == b'-'));
            }
        }
    }
}
