//! What the kernel asks.
//!
//! What may never happen: a request whose bytes are shorter than they say that is more than an error.

use std::ffi::CStr;

/// Bytes before each request (`struct fuse_in_header`).
pub const HEAD_BYTES: usize = 40;
/// The kind of extension that carries groups (`FUSE_EXT_GROUPS`).
const GROUPS: u32 = 32;
/// `FUSE_WRITE_KILL_SUIDGID`.
const WRITE_KILLS: u32 = 1 << 2;
/// More groups are not looked at: the kernel sends one.
const GROUPS_MAX: usize = 32;

/// Why bytes are no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request of the kernel is shorter than it says")]
pub struct Short;

/// What stands before each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which question.
    pub unique: u64,
    /// Of which file.
    pub node: u64,
    /// Whose process asks.
    pub uid: u32,
    /// And of which group.
    pub gid: u32,
}

/// Which times are set, and to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Set {
    /// Mode.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length.
    pub size: Option<u64>,
    /// Access time; none in it: now.
    pub atime: Option<Option<(i64, u32)>>,
    /// Modification time.
    pub mtime: Option<Option<(i64, u32)>>,
    /// The open file by which it is done.
    pub handle: Option<u64>,
    /// The bits that let a program run as its owner go.
    pub kills: bool,
}

/// A part of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The open file.
    pub handle: u64,
    /// From here.
    pub at: u64,
    /// This number of bytes.
    pub size: u32,
    /// How the file was opened.
    pub flags: u32,
    /// How it is read or written.
    pub how: u32,
}

/// A `flock(2)`, or a lock of a range (`fcntl(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// The open file.
    pub handle: u64,
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub kind: u32,
    /// It is a `flock(2)`.
    pub is_whole: bool,
    /// Who asks waits for it.
    pub waits: bool,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the system calls")]
pub enum Op<'a> {
    Lookup {
        name: &'a CStr,
    },
    Forget {
        times: u64,
    },
    /// Several files: numbers and times, each eight bytes.
    ForgetMany {
        list: &'a [u8],
    },
    GetAttributes {
        handle: Option<u64>,
    },
    SetAttributes(Set),
    ReadLink,
    MakeLink {
        name: &'a CStr,
        target: &'a CStr,
    },
    MakeNode {
        name: &'a CStr,
        mode: u32,
        device: u32,
        umask: u32,
    },
    MakeDir {
        name: &'a CStr,
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: &'a CStr,
    },
    RemoveDir {
        name: &'a CStr,
    },
    Rename {
        name: &'a CStr,
        to: u64,
        as_name: &'a CStr,
        flags: u32,
    },
    AddName {
        of: u64,
        name: &'a CStr,
    },
    Open {
        flags: u32,
        kills: bool,
    },
    Create {
        name: &'a CStr,
        flags: u32,
        mode: u32,
        umask: u32,
    },
    Nameless {
        flags: u32,
        mode: u32,
        umask: u32,
    },
    Read(Part),
    Write {
        part: Part,
        data: &'a [u8],
        kills: bool,
    },
    Room,
    Release {
        handle: u64,
    },
    Sync {
        handle: u64,
        data: bool,
    },
    SetAttribute {
        name: &'a CStr,
        value: &'a [u8],
        flags: u32,
    },
    Attribute {
        name: &'a CStr,
        size: u32,
    },
    AttributeNames {
        size: u32,
    },
    RemoveAttribute {
        name: &'a CStr,
    },
    OpenDir,
    List(Part),
    ListWithAttributes(Part),
    ReleaseDir {
        handle: u64,
    },
    SyncDir {
        handle: u64,
        data: bool,
    },
    SetLock(Lock),
    Interrupt {
        unique: u64,
    },
    Allocate {
        handle: u64,
        at: u64,
        length: u64,
        mode: u32,
    },
    Find {
        handle: u64,
        at: u64,
        whence: u32,
    },
    Copy {
        from: u64,
        from_at: u64,
        to: u64,
        to_at: u64,
        length: u64,
    },
    SyncAll,
    /// The first exchange; what it says is read by [`super::opening`].
    Opening {
        body: &'a [u8],
    },
    Destroy,
    /// Something else.
    Unknown(u32),
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// What stands before it.
    pub head: Head,
    /// Groups of whom asks, as far as they matter.
    pub groups: Vec<u32>,
    /// What is asked for.
    pub op: Op<'a>,
}

impl<'a> Request<'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Short`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, (Option<u64>, Short)> {
        let mut head = Bytes(bytes);
        let (parsed, opcode, extended) = head.head().map_err(|short| (None, short))?;
        let failed = |short| (Some(parsed.unique), short);
        let Bytes(body) = head;
        let cut = body.len().checked_sub(extended).ok_or(failed(Short))?;
        let (body, extension) = body.split_at(cut);
        let op = op(opcode, body).map_err(failed)?;
        let groups = groups(extension).unwrap_or_default();
        Ok(Self {
            head: parsed,
            groups,
            op,
        })
    }
}

/// Which thread asks, as far as it is seen from here; 0: none, or it is not.
pub fn asker(request: &[u8]) -> u32 {
    let bytes = request.get(32..36).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_ne_bytes)
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Short> {
        let (taken, left) = self.0.split_at_checked(length).ok_or(Short)?;
        self.0 = left;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, Short> {
        let bytes = self.take(4)?.try_into().map_err(|_| Short)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn u64(&mut self) -> Result<u64, Short> {
        let bytes = self.take(8)?.try_into().map_err(|_| Short)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn name(&mut self) -> Result<&'a CStr, Short> {
        let name = CStr::from_bytes_until_nul(self.0).map_err(|_| Short)?;
        self.take(name.count_bytes().saturating_add(1))?;
        Ok(name)
    }

    /// The head, the kind of request, and the length of what comes after it.
    fn head(&mut self) -> Result<(Head, u32, usize), Short> {
        let (_length, opcode) = (self.u32()?, self.u32()?);
        let (unique, node) = (self.u64()?, self.u64()?);
        let (uid, gid, _pid) = (self.u32()?, self.u32()?, self.u32()?);
        // In units of eight bytes; two bytes of padding follow.
        let extended = self.take(4)?;
        let extended = u16::from_ne_bytes([
            extended.first().copied().unwrap_or(0),
            extended.get(1).copied().unwrap_or(0),
        ]);
        let head = Head {
            unique,
            node,
            uid,
            gid,
        };
        Ok((head, opcode, usize::from(extended).saturating_mul(8)))
    }

    fn part(&mut self) -> Result<Part, Short> {
        let (handle, at, size) = (self.u64()?, self.u64()?, self.u32()?);
        let (how, _owner) = (self.u32()?, self.u64()?);
        let (flags, _) = (self.u32()?, self.u32()?);
        Ok(Part {
            handle,
            at,
            size,
            flags,
            how,
        })
    }

    fn set(&mut self) -> Result<Set, Short> {
        let (valid, _) = (self.u32()?, self.u32()?);
        let (handle, size, _owner) = (self.u64()?, self.u64()?, self.u64()?);
        let (atime, mtime, _ctime) = (self.u64()?, self.u64()?, self.u64()?);
        let (atime_nanos, mtime_nanos, _) = (self.u32()?, self.u32()?, self.u32()?);
        let (mode, _) = (self.u32()?, self.u32()?);
        let (uid, gid, _) = (self.u32()?, self.u32()?, self.u32()?);
        let has = |bit: u32| valid & (1 << bit) != 0;
        let time = |set: u32, now: u32, seconds: u64, nanos| {
            has(set).then(|| (!has(now)).then_some((seconds.cast_signed(), nanos)))
        };
        Ok(Set {
            mode: has(0).then_some(mode),
            uid: has(1).then_some(uid),
            gid: has(2).then_some(gid),
            size: has(3).then_some(size),
            atime: time(4, 7, atime, atime_nanos),
            mtime: time(5, 8, mtime, mtime_nanos),
            handle: has(6).then_some(handle),
            kills: has(11),
        })
    }

    fn lock(&mut self, waits: bool) -> Result<Lock, Short> {
        let (handle, _owner) = (self.u64()?, self.u64()?);
        let (_start, _end) = (self.u64()?, self.u64()?);
        let (kind, _pid) = (self.u32()?, self.u32()?);
        let flags = self.u32()?;
        Ok(Lock {
            handle,
            kind,
            is_whole: flags & 1 != 0,
            waits,
        })
    }
}

/// Groups that an extension carries.
fn groups(bytes: &[u8]) -> Result<Vec<u32>, Short> {
    let mut left = Bytes(bytes);
    while !left.0.is_empty() {
        let (size, kind) = (left.u32()?, left.u32()?);
        let rest = usize::try_from(size)
            .map_err(|_| Short)?
            .checked_sub(8)
            .ok_or(Short)?;
        let mut body = Bytes(left.take(rest)?);
        if kind == GROUPS {
            let count = usize::try_from(body.u32()?).map_err(|_| Short)?.min(GROUPS_MAX);
            return (0..count).map(|_| body.u32()).collect();
        }
    }
    Ok(Vec::new())
}

fn op(opcode: u32, body: &[u8]) -> Result<Op<'_>, Short> {
    let mut b = Bytes(body);
    Ok(match opcode {
        1..=13 => return names(opcode, b),
        14 => Op::Open {
            flags: b.u32()?,
            kills: b.u32()? & 1 != 0,
        },
        15 => Op::Read(b.part()?),
        16 => {
            let part = b.part()?;
            let size = usize::try_from(part.size).map_err(|_| Short)?;
            Op::Write {
                part,
                data: b.take(size)?,
                kills: part.how & WRITE_KILLS != 0,
            }
        }
        17 => Op::Room,
        18 => Op::Release { handle: b.u64()? },
        20 => Op::Sync {
            handle: b.u64()?,
            data: b.u32()? & 1 != 0,
        },
        21..=23 => return attributes(opcode, b),
        24 => Op::RemoveAttribute { name: b.name()? },
        26 => Op::Opening { body },
        27 => Op::OpenDir,
        28 => Op::List(b.part()?),
        29 => Op::ReleaseDir { handle: b.u64()? },
        30 => Op::SyncDir {
            handle: b.u64()?,
            data: b.u32()? & 1 != 0,
        },
        32 => Op::SetLock(b.lock(false)?),
        33 => Op::SetLock(b.lock(true)?),
        35 => Op::Create {
            flags: b.u32()?,
            mode: b.u32()?,
            umask: b.u32()?,
            name: b.u32().and_then(|_| b.name())?,
        },
        36 => Op::Interrupt { unique: b.u64()? },
        38 => Op::Destroy,
        42 => {
            b.take(8)?;
            Op::ForgetMany { list: b.0 }
        }
        43 => Op::Allocate {
            handle: b.u64()?,
            at: b.u64()?,
            length: b.u64()?,
            mode: b.u32()?,
        },
        44 => Op::ListWithAttributes(b.part()?),
        45 => Op::Rename {
            to: b.u64()?,
            flags: b.u32()?,
            name: b.u32().and_then(|_| b.name())?,
            as_name: b.name()?,
        },
        46 => Op::Find {
            handle: b.u64()?,
            at: b.u64()?,
            whence: b.u32()?,
        },
        47 => {
            let (from, from_at, _node) = (b.u64()?, b.u64()?, b.u64()?);
            Op::Copy {
                from,
                from_at,
                to: b.u64()?,
                to_at: b.u64()?,
                length: b.u64()?,
            }
        }
        50 => Op::SyncAll,
        51 => Op::Nameless {
            flags: b.u32()?,
            mode: b.u32()?,
            umask: b.u32()?,
        },
        other => Op::Unknown(other),
    })
}

fn names(opcode: u32, mut b: Bytes<'_>) -> Result<Op<'_>, Short> {
    Ok(match opcode {
        1 => Op::Lookup { name: b.name()? },
        2 => Op::Forget { times: b.u64()? },
        3 => {
            let (flags, _) = (b.u32()?, b.u32()?);
            let handle = b.u64()?;
            Op::GetAttributes {
                handle: (flags & 1 != 0).then_some(handle),
            }
        }
        4 => Op::SetAttributes(b.set()?),
        5 => Op::ReadLink,
        6 => Op::MakeLink {
            name: b.name()?,
            target: b.name()?,
        },
        8 => Op::MakeNode {
            mode: b.u32()?,
            device: b.u32()?,
            umask: b.u32()?,
            name: b.u32().and_then(|_| b.name())?,
        },
        9 => Op::MakeDir {
            mode: b.u32()?,
            umask: b.u32()?,
            name: b.name()?,
        },
        10 => Op::Unlink { name: b.name()? },
        11 => Op::RemoveDir { name: b.name()? },
        12 => Op::Rename {
            to: b.u64()?,
            flags: 0,
            name: b.name()?,
            as_name: b.name()?,
        },
        13 => Op::AddName {
            of: b.u64()?,
            name: b.name()?,
        },
        other => Op::Unknown(other),
    })
}

fn attributes(opcode: u32, mut b: Bytes<'_>) -> Result<Op<'_>, Short> {
    let (size, flags) = (b.u32()?, b.u32()?);
    Ok(match opcode {
        21 => {
            let name = b.name()?;
            let length = usize::try_from(size).map_err(|_| Short)?;
            Op::SetAttribute {
                name,
                value: b.take(length)?,
                flags,
            }
        }
        22 => Op::Attribute {
            name: b.name()?,
            size,
        },
        23 => Op::AttributeNames { size },
        other => Op::Unknown(other),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn request(opcode: u32, body: &[u8], extended: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        let length = u32::try_from(HEAD_BYTES + body.len()).unwrap();
        for number in [length, opcode] {
            bytes.extend(number.to_ne_bytes());
        }
        for number in [77u64, 5] {
            bytes.extend(number.to_ne_bytes());
        }
        for number in [1000u32, 100, 4242] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(extended.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_lookup_is_read_with_who_asks() {
        let bytes = request(1, b"a name\0", 0);
        let parsed = Request::parse(&bytes).unwrap();
        let head = parsed.head;
        assert_eq!((head.unique, head.node, head.uid, head.gid), (77, 5, 1000, 100));
        assert_eq!(parsed.op, Op::Lookup { name: c"a name" });
        assert_eq!((asker(&bytes), asker(&[0; 35])), (4242, 0));
    }

    #[test]
    fn the_group_of_an_extension_is_read() {
        let mut body = Vec::new();
        for number in [0o755u32, 0o022] {
            body.extend(number.to_ne_bytes());
        }
        body.extend(b"dir\0\0\0\0\0");
        for number in [16u32, GROUPS, 1, 4711] {
            body.extend(number.to_ne_bytes());
        }
        let bytes = request(9, &body, 2);
        let parsed = Request::parse(&bytes).unwrap();
        assert_eq!(parsed.groups, [4711]);
        assert_eq!(
            parsed.op,
            Op::MakeDir {
                name: c"dir",
                mode: 0o755,
                umask: 0o022
            }
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_an_error(opcode in 0u32..60, body in proptest::collection::vec(any::<u8>(), 0..200), extended in 0u16..30) {
            let bytes = request(opcode, &body, extended);
            let _ = Request::parse(&bytes);
            for end in 0..bytes.len().min(HEAD_BYTES + 8) {
                let _ = Request::parse(&bytes[..end]);
            }
        }
    }
}
