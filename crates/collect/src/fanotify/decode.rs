//! Event records of `fanotify(7)` as values. Pure and bounds-checked: no bytes make it panic.
//!
//! ```text
//! metadata   event_len:u32 vers:u8 reserved:u8 metadata_len:u16 mask:u64 fd:i32 pid:i32
//! info*      type:u8 pad:u8 len:u16  fsid:8 bytes  handle_bytes:u32 handle_type:i32 handle  [name NUL]
//!            or, of the process, type:u8 pad:u8 len:u16  pidfd:i32
//! ```
//! All in the machine's own byte order. Info records of unknown types are skipped, as the man page asks.

use purge_sys::handle::Handle;

/// The only metadata version there is (`FANOTIFY_METADATA_VERSION`).
const VERSION: u8 = 3;
const METADATA_BYTES: usize = 24;
const INFO_HEAD_BYTES: usize = 4;
const FSID_BYTES: usize = 8;

/// Info record types of `linux/fanotify.h`.
const FID: u8 = 1;
const DFID_NAME: u8 = 2;
const DFID: u8 = 3;
const PIDFD: u8 = 4;
const OLD_DFID_NAME: u8 = 10;
const NEW_DFID_NAME: u8 = 12;

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The directory's handle.
    pub dir: Handle,
    /// The entry's name; empty for the directory itself.
    pub name: &'a [u8],
}

/// One record. What it means is said in `events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What happened; see [`purge_sys::fanotify::mask`]. Several bits when the kernel merged events.
    pub mask: u64,
    /// Who did it, as a thread group id; 0 where the kernel does not tell.
    pub pid: i32,
    /// A descriptor of the process, where the group asked for it and the process was alive; the reader of the event must
    /// close it.
    pub pidfd: Option<i32>,
    /// The file itself.
    pub file: Option<Handle>,
    /// Where it lies, for namespace events.
    pub place: Option<Place<'a>>,
    /// For a rename: where it lay before.
    pub old: Option<Place<'a>>,
    /// For a rename: where it lies now.
    pub new: Option<Place<'a>>,
}

/// A record that cannot be what the kernel writes. The rest of the buffer cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record's length does not fit.
    #[error("event record of {0} bytes does not fit its buffer")]
    Length(usize),
    /// Another ABI than this decoder knows.
    #[error("event metadata version {0}, expected {VERSION}")]
    Version(u8),
    /// An info record is cut short.
    #[error("info record of type {0} is cut short")]
    Info(u8),
}

/// The events in `buffer`, as one `read(2)` filled it. Ends after the first error.
pub fn records(buffer: &[u8]) -> impl Iterator<Item = Result<Record<'_>, DecodeError>> {
    let mut rest = buffer;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let decoded = split_event(rest).and_then(|(record, after)| {
            rest = after;
            decode_event(record)
        });
        if decoded.is_err() {
            rest = &[];
        }
        Some(decoded)
    })
}

/// The beginning of `buffer` that holds whole records: where a killed process left off, zeros follow, or half a record.
pub fn whole_records(buffer: &[u8]) -> &[u8] {
    let mut len = 0;
    while let Some(rest) = buffer.get(len..)
        && let Ok((record, _)) = split_event(rest)
        && decode_event(record).is_ok()
    {
        len += record.len();
    }
    buffer.get(..len).unwrap_or(&[])
}

fn split_event(bytes: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
    let len = u32_at(bytes, 0).ok_or(DecodeError::Length(bytes.len()))? as usize;
    if len < METADATA_BYTES {
        return Err(DecodeError::Length(len));
    }
    bytes.split_at_checked(len).ok_or(DecodeError::Length(len))
}

fn decode_event(record: &[u8]) -> Result<Record<'_>, DecodeError> {
    let short = DecodeError::Length(record.len());
    let version = *record.get(4).ok_or(short)?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let metadata_len = u16_at(record, 6).ok_or(short)?;
    let mask = u64_at(record, 8).ok_or(short)?;
    let pid = u32_at(record, 20).ok_or(short)?.cast_signed();
    let mut event = Record {
        mask,
        pid,
        pidfd: None,
        file: None,
        place: None,
        old: None,
        new: None,
    };
    let mut infos = record.get(metadata_len.into()..).ok_or(short)?;
    while infos.len() >= INFO_HEAD_BYTES {
        let kind = infos.first().copied().unwrap_or(0);
        let len = usize::from(u16_at(infos, 2).ok_or(DecodeError::Info(kind))?);
        if len < INFO_HEAD_BYTES {
            return Err(DecodeError::Info(kind));
        }
        let (info, after) = infos.split_at_checked(len).ok_or(DecodeError::Info(kind))?;
        infos = after;
        take_info(&mut event, kind, info)?;
    }
    Ok(event)
}

fn take_info<'a>(event: &mut Record<'a>, kind: u8, info: &'a [u8]) -> Result<(), DecodeError> {
    if kind == PIDFD {
        let fd = u32_at(info, INFO_HEAD_BYTES)
            .ok_or(DecodeError::Info(kind))?
            .cast_signed();
        // FAN_NOPIDFD, FAN_EPIDFD: the process has ended, or a descriptor could not be had.
        event.pidfd = Some(fd).filter(|fd| *fd >= 0);
        return Ok(());
    }
    if !matches!(kind, FID | DFID | DFID_NAME | OLD_DFID_NAME | NEW_DFID_NAME) {
        return Ok(());
    }
    let (handle, tail) = read_handle(info).ok_or(DecodeError::Info(kind))?;
    // A handle longer than any known file system's cannot be used; the event is then without it.
    let Some(handle) = handle else { return Ok(()) };
    let name = tail.split(|b| *b == 0).next().unwrap_or(&[]);
    let place = Some(Place { dir: handle, name });
    match kind {
        FID => event.file = Some(handle),
        DFID | DFID_NAME => event.place = place,
        OLD_DFID_NAME => event.old = place,
        _ => event.new = place,
    }
    Ok(())
}

fn read_handle(info: &[u8]) -> Option<(Option<Handle>, &[u8])> {
    let at = INFO_HEAD_BYTES + FSID_BYTES;
    let len = u32_at(info, at)? as usize;
    let kind = u32_at(info, at + 4)?.cast_signed();
    let (content, tail) = info.get(at + 8..)?.split_at_checked(len)?;
    Some((Handle::new(kind, content), tail))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(
        bytes.get(at..at.checked_add(8)?)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn info(kind: u8, handle: &[u8], name: Option<&[u8]>) -> Vec<u8> {
        let mut body = vec![7; FSID_BYTES];
        body.extend((handle.len() as u32).to_ne_bytes());
        body.extend(1i32.to_ne_bytes());
        body.extend(handle);
        if let Some(name) = name {
            body.extend(name);
            body.push(0);
        }
        body.resize(body.len().next_multiple_of(4), 0);
        let mut out = vec![kind, 0];
        out.extend((body.len() as u16 + 4).to_ne_bytes());
        out.extend(body);
        out
    }

    fn event(mask: u64, pid: i32, infos: &[Vec<u8>]) -> Vec<u8> {
        let body: Vec<u8> = infos.concat();
        let mut out = (METADATA_BYTES as u32 + body.len() as u32).to_ne_bytes().to_vec();
        out.extend([VERSION, 0]);
        out.extend((METADATA_BYTES as u16).to_ne_bytes());
        out.extend(mask.to_ne_bytes());
        out.extend((-1i32).to_ne_bytes());
        out.extend(pid.to_ne_bytes());
        out.extend(body);
        out
    }

    #[test]
    fn events_and_their_places_are_read() {
        let name = b"a\xff\nb";
        let mut buffer = event(0x20, 5, &[info(FID, b"12345678", None)]);
        buffer.extend(event(
            0x1000_0000,
            6,
            &[
                info(OLD_DFID_NAME, b"dir1", Some(name)),
                info(NEW_DFID_NAME, b"dir2", Some(b"new")),
                info(FID, b"file", None),
            ],
        ));
        let events: Vec<_> = records(&buffer).collect::<Result<_, _>>().unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!((events[0].mask, events[0].pid), (0x20, 5));
        assert_eq!(events[0].file.unwrap().content(), b"12345678");
        assert_eq!(events[1].old.unwrap().name, name);
        assert_eq!(events[1].new.unwrap().dir.content(), b"dir2");
        assert_eq!(events[1].file.unwrap().content(), b"file");
    }

    #[test]
    fn records_of_unknown_types_are_skipped() {
        let buffer = event(1, 1, &[info(99, b"x", None), info(FID, b"y", None)]);
        assert_eq!(
            records(&buffer).next().unwrap().unwrap().file.unwrap().content(),
            b"y"
        );
    }

    #[test]
    fn another_version_is_an_error_not_a_guess() {
        let mut buffer = event(1, 1, &[]);
        buffer[4] = 4;
        assert_eq!(records(&buffer).next().unwrap(), Err(DecodeError::Version(4)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            records(&bytes).for_each(drop);
        }

        #[test]
        fn a_truncated_buffer_is_an_error_at_most_once(cut in 0usize..200) {
            let mut buffer = event(0x20, 5, &[info(FID, b"12345678", None)]);
            buffer.extend(event(0x100, 6, &[info(DFID_NAME, b"dir", Some(b"name")), info(FID, b"f", None)]));
            buffer.truncate(cut);
            let errors = records(&buffer).filter(Result::is_err).count();
            prop_assert!(errors <= 1);
        }
    }
}
