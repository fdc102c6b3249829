//! Writes the seed corpora, byte by byte as the formats say and without the code under test.
//!
//! ```text
//! rustc --edition 2024 -o target/seeds seeds.rs && target/seeds corpus
//! ```

use std::fs;
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let Some(corpus) = std::env::args().nth(1) else {
        eprintln!("usage: seeds CORPUS");
        std::process::exit(2);
    };
    write_all(Path::new(&corpus), "events", &events())?;
    write_all(Path::new(&corpus), "kept", &kept())?;
    write_all(Path::new(&corpus), "rows", &rows())?;
    write_all(Path::new(&corpus), "units", &units())
}

type Seed = (&'static str, Vec<u8>);

fn write_all(corpus: &Path, target: &str, seeds: &[Seed]) -> io::Result<()> {
    let dir = corpus.join(target);
    fs::create_dir_all(&dir)?;
    seeds
        .iter()
        .try_for_each(|(name, bytes)| fs::write(dir.join(name), bytes))
}

// ---------------------------------------------------------------- events, see fanotify(7)

const FID: u8 = 1;
const DFID_NAME: u8 = 2;
const OLD_DFID_NAME: u8 = 10;
const NEW_DFID_NAME: u8 = 12;

fn events() -> Vec<Seed> {
    let ext4 = [12u32.to_ne_bytes(), 7u32.to_ne_bytes()].concat();
    let tmpfs = [&7u32.to_ne_bytes()[..], &(1u64 << 40).to_ne_bytes()].concat();
    let xfs = [&131u64.to_ne_bytes()[..], &7u32.to_ne_bytes()].concat();
    let btrfs = [
        &257u64.to_ne_bytes()[..],
        &5u64.to_ne_bytes(),
        &7u32.to_ne_bytes(),
    ]
    .concat();

    let access = event(0x1, &[info(FID, 1, &ext4, None)]);
    let create = event(
        0x100,
        &[info(DFID_NAME, 1, &ext4, Some(b"new")), info(FID, 1, &ext4, None)],
    );
    let rename = event(
        0x1000_0000,
        &[
            info(OLD_DFID_NAME, 1, &ext4, Some(b"a\xff\nb")),
            info(NEW_DFID_NAME, 1, &ext4, Some(b"b")),
            info(FID, 1, &ext4, None),
        ],
    );
    let overflow = event(0x4000, &[]);
    let unknown = event(0x2, &[info(99, 1, b"?", None), info(FID, 1, &ext4, None)]);
    let too_long = event(0x2, &[info(FID, 1, &[9; 128], None)]);
    vec![
        ("access-tmpfs", event(0x1, &[info(FID, 1, &tmpfs, None)])),
        ("access-xfs", event(0x1, &[info(FID, 0x81, &xfs, None)])),
        ("access-btrfs", event(0x1, &[info(FID, 0x4d, &btrfs, None)])),
        ("long-handle", too_long),
        ("unknown-info", unknown),
        ("overflow", overflow.clone()),
        ("several", [&access[..], &create, &rename, &overflow].concat()),
        ("cut-short", rename[..rename.len() - 5].to_vec()),
        ("access-ext4", access),
        ("create", create),
        ("rename", rename),
    ]
}

fn event(mask: u64, infos: &[Vec<u8>]) -> Vec<u8> {
    let infos = infos.concat();
    let mut out = (24 + infos.len() as u32).to_ne_bytes().to_vec();
    out.extend([3, 0]); // version, reserved
    out.extend(24u16.to_ne_bytes());
    out.extend(mask.to_ne_bytes());
    out.extend((-1i32).to_ne_bytes()); // no descriptor
    out.extend(4242i32.to_ne_bytes());
    out.extend(infos);
    out
}

fn info(kind: u8, handle_kind: i32, handle: &[u8], name: Option<&[u8]>) -> Vec<u8> {
    let mut body = vec![7; 8]; // fsid
    body.extend((handle.len() as u32).to_ne_bytes());
    body.extend(handle_kind.to_ne_bytes());
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

// ---------------------------------------------------------------- rows, see agent/src/index/codec.rs

const CLOCKS: u8 = 0;
const ATTRIBUTES: u8 = 1;
const NAMES: u8 = 2;
const DIRECTORIES: u8 = 3;
const VARINTS: u8 = 4;

fn rows() -> Vec<Seed> {
    let time = 1_780_000_000u32.to_le_bytes();
    let clocks = row(CLOCKS, &[&present(0b101), &time, &time, &[0, 1]]);
    let clocks_full = row(CLOCKS, &[&present(u64::MAX), &time.repeat(64), &[1; 64]]);
    // flags, parent + 3, size 300, uid 1000, gid 100, ctime + 64 / then owner as before, links 2, mtime and birth given
    let first = [0, 6, 0xac, 2, 0xe8, 7, 100, 0x80, 1];
    let second = [0b11_1101, 1, 0, 2, 10, 3, 5];
    let attributes = row(ATTRIBUTES, &[&present(0b11), &first, &second]);
    let names = row(
        NAMES,
        &[
            &[0, 0, 1, b'a'],
            &[63, 0x80, 1, 4, 0xff, b'\n', b' ', b'.'],
            &[63, 5, 0],
        ],
    );
    let directories = row(
        DIRECTORIES,
        &[&[1, 2, 0, 0], &[0], &[7, 0x8c, 1, 0, 3], b"dir", &[0, 0]],
    );
    let varints = row(VARINTS, &[&[0, 0x7f, 0x80, 1], &[0xff; 9], &[1]]);
    vec![
        ("clocks", clocks),
        ("clocks-full", clocks_full),
        ("clocks-empty", row(CLOCKS, &[&present(0)])),
        ("attributes", attributes),
        ("names", names),
        ("directories", directories),
        ("varints", varints),
        ("varint-too-long", row(VARINTS, &[&[0xff; 10]])),
    ]
}

fn row(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[kind][..], &parts.concat()].concat()
}

fn present(bits: u64) -> [u8; 8] {
    bits.to_le_bytes()
}

// ---------------------------------------------------------------- what lies beside the store, see agent/src/index/frame.rs

const FRAMES: u8 = 0;
const ENTRY: u8 = 2;
const PAGES: u8 = 4;
const CLOCK: u8 = 5;

fn kept() -> Vec<Seed> {
    // Two empty frames: no bytes have the checksum 0.
    let frames = row(FRAMES, &[&[0; 16]]);
    // At 300; inodes 1, 12, 11
    let uses = row(ENTRY, &[&[2, 0xac, 2, 2, 22, 1]]);
    let gap = row(ENTRY, &[&[3, 0xac, 2], b"overflow"]);
    // Page 1 with the offsets 0 and 2: clocks, sources, births 5 and 7
    let time = 1_780_000_000u32.to_le_bytes();
    let pages = row(PAGES, &[&[2], &present(0b101), &time, &time, &[0, 1], &[10, 4]]);
    // offset -1, boot, now 1
    let clock = row(CLOCK, &[&[21, 1, 1], &[9; 16], &[2]]);
    vec![
        ("frames", frames),
        ("uses", uses),
        ("gap", gap),
        ("pages", pages),
        ("clock", clock),
    ]
}

// ---------------------------------------------------------------- units

fn units() -> Vec<Seed> {
    let seed = |name, text: &str| (name, text.as_bytes().to_vec());
    vec![
        seed("days", "28d"),
        seed("hours", "12h"),
        seed("compound", "1d12h"),
        seed("zero", "0s"),
        seed("bytes", "0B"),
        seed("decimal", "10GB"),
        seed("binary", "4TiB"),
        seed("fraction", "1.5TB"),
        seed("huge", "18446744073709551615"),
    ]
}
