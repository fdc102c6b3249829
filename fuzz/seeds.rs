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
    write_all(Path::new(&corpus), "asked", &asked())?;
    write_all(Path::new(&corpus), "config", &config())?;
    write_all(Path::new(&corpus), "events", &events())?;
    write_all(Path::new(&corpus), "globs", &globs())?;
    write_all(Path::new(&corpus), "beside_store", &beside_store())?;
    write_all(Path::new(&corpus), "mounted", &mounted())?;
    write_all(Path::new(&corpus), "plans", &plans())?;
    write_all(Path::new(&corpus), "requests", &requests())?;
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

// ---------------------------------------------------------------- rows, see crates/index/src/codec.rs

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

// ---------------------------------------------------------------- what lies beside the store, see crates/index/src/frame.rs

const FRAMES: u8 = 0;
const ENTRY: u8 = 2;
const PAGES: u8 = 4;
const CLOCK: u8 = 5;

fn beside_store() -> Vec<Seed> {
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

// ---------------------------------------------------------------- what people write

const VOLUME: &str = "[[volume]]\nname = \"v\"\npath = \"/srv/v\"\n";
const RULE: &str = "[[rule]]\nname = \"r\"\nvolume = \"v\"\nttl = \"28d\"\n";

fn config() -> Vec<Seed> {
    let seed = |name, texts: &[&str]| (name, texts.concat().into_bytes());
    vec![
        seed("least", &[VOLUME]),
        seed("unknown-key", &[VOLUME, "pahts = 1\n"]),
        seed(
            "volume",
            &[
                VOLUME,
                "collector = \"auto\"\nbaseline = \"atime\"\nprecision = \"1h\"\ngap_tolerance = \"10m\"\n\
                 flush_interval = \"1s\"\ncheckpoint_interval = \"10m\"\nsweep_interval = \"7d\"\nsweep_rate = 1000\n\
                 ignore_accessors = [ { comm = \"updatedb\", what = \"opens\" }, { exe = \"/bin/x\" }, { uid = \"root\" } ]\n",
            ],
        ),
        seed(
            "rule",
            &[
                VOLUME,
                RULE,
                "target = \"directory\"\ndepth = 2\nclock = [\"access\", \"modify\"]\ninclude = [\"**\"]\n\
                 exclude = [\"**/.keep\"]\nusers = [\"root\"]\nmin_size = \"1kB\"\nmax_size = \"1TiB\"\n\
                 remove_empty_dirs = true\nmax_empty_dirs = 5\naction = \"delete\"\nannounce = \"14d\"\n\
                 announce_to = \"/srv/lists\"\ngrace = \"24h\"\nschedule = \"30 3 * * 1-5\"\nauto_apply = true\n\
                 max_files = 9\nmax_bytes = \"1GB\"\nmax_errors = 0.05\nmax_fraction = 0.25\norder = \"largest\"\n",
            ],
        ),
        seed(
            "limits",
            &[
                VOLUME,
                RULE,
                "[[quota]]\nname = \"q\"\nvolume = \"v\"\nsubject = \"user\"\nhard = \"40TB\"\ntemporal = \"300TB\"\n\
                 max_age = \"365d\"\naction = \"purge\"\nlow = \"90%\"\noverrides = [ { match = \"root\", hard = \"80TB\" } ]\n\
                 [[watermark]]\nvolume = \"v\"\nhigh = \"85%\"\nlow = \"75%\"\nrule = \"r\"\nmin_age = \"2d\"\n",
            ],
        ),
        seed(
            "listen",
            &[
                "state_dir = \"/var/lib/p\"\n[listen]\nunix = \"/run/p.sock\"\ngroup = \"root\"\ntcp = \"[::]:7443\"\n\
                 metrics = \"127.0.0.1:9469\"\ntls = { cert = \"/a\", key = \"credential:k\", client_ca = \"/c\" }\n\
                 [access]\nviewer = { users = [\"root\"], groups = [\"root\"] }\nadmin = { certificates = [\"CN=a,O=b\"] }\n\
                 self = true\nself_hold_max = \"30d\"\nmax_plan_files = 5\n",
                VOLUME,
            ],
        ),
        seed(
            "notify",
            &[
                VOLUME,
                "[notify]\nwarn_before = \"7d\"\nsmtp = { host = \"h\", port = 25, from = \"a@b\", to = \"{user}@b\" }\n\
                 webhook = { url = \"http://127.0.0.1:8080/hook\" }\namqp = { url = \"amqp://h:5672/%2f\", exchange = \"p\" }\n\
                 exec = { command = [\"/bin/true\"] }\n",
            ],
        ),
        seed(
            "drop-ins-and-environment",
            &[
                VOLUME,
                "\0",
                RULE,
                "\0=/var/lib/q\0",
                "[[rule]]\nname = \"s\"\nvolume = \"w\"\n\0=\0=/s\0=127.0.0.1:1",
            ],
        ),
    ]
}

fn globs() -> Vec<Seed> {
    let seed = |name, text: &[u8]| (name, text.to_vec());
    vec![
        seed("everything", b"**\na\na/b\n"),
        seed("anchored", b"/a\tb/**\t*.tmp\na\nb/c\nx/a\nd.tmp/e"),
        seed("classes", b"[a-c]?\t{x,y}*\t**/z/**\nbq\nx1\na/z/b\n../a\n/a"),
        seed("bytes", b"a*\na\xff\xfe\n\x01"),
        seed("refused", b"!a\n"),
        seed("escaped", b"\\*\t\\[a\n*\n[a"),
    ]
}

// ---------------------------------------------------------------- messages of the contract, see proto/purge/v1/purge.proto

/// The choice, then fields: number, and bytes or a number.
fn requests() -> Vec<Seed> {
    let text = |field: u8, text: &str| [&[field << 3 | 2, text.len() as u8], text.as_bytes()].concat();
    let number = |field: u8, n: u8| vec![field << 3, n];
    let seed =
        |name, choice: u8, fields: &[Vec<u8>]| (name, [&[choice], fields.concat().as_slice()].concat());
    vec![
        seed("plan", 0, &[text(1, "r"), text(2, "v"), number(3, 60)]),
        seed("plan-quota", 0, &[text(4, "q")]),
        seed("plan-watermark", 0, &[text(2, "v"), number(5, 1)]),
        seed(
            "find",
            1,
            &[
                text(1, "/srv/v/a"),
                number(2, 60),
                text(4, "root"),
                text(8, "*.tmp"),
                number(10, 1),
            ],
        ),
        seed("mine", 2, &[number(1, 60), text(3, "root")]),
        seed(
            "forecast",
            3,
            &[text(1, "r"), number(4, 14), number(5, 1), number(6, 2)],
        ),
        seed("usage", 4, &[number(1, 4), number(2, 3), text(3, "v")]),
        seed("hold", 5, &[text(1, "/srv/v/a"), text(2, "why"), number(3, 60)]),
        seed("apply", 6, &[text(1, "p1"), number(2, 1), number(3, 100)]),
        seed("run", 9, &[text(1, "r1")]),
        seed("restore", 12, &[text(1, "r1"), text(2, "/srv/v/a")]),
        seed("pages", 15, &[number(1, 7), text(2, "r099")]),
        seed("timeout", 25, &[b"99999999H".to_vec()]),
        seed("call", 26, &[b"GetStatus".to_vec()]),
        seed("subject", 27, &[b"CN=a\\,b,O=c\nCN=a\\,b,O=c,C=DE".to_vec()]),
    ]
}

// ---------------------------------------------------------------- requests of a mount, see linux/fuse.h

/// Kind, then what follows the head; as many bytes of it as said are an extension.
fn mounted() -> Vec<Seed> {
    let request = |kind: u32, body: &[u8], extended: u16| {
        let length = 40 + body.len() as u32;
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend([7u64, 5].into_iter().flat_map(u64::to_ne_bytes));
        bytes.extend([1000u32, 100, 4242].into_iter().flat_map(u32::to_ne_bytes));
        bytes.extend((extended / 8).to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(body);
        bytes
    };
    let numbers = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_ne_bytes()).collect::<Vec<u8>>();
    let groups = numbers(&[16, 32, 1, 777]);
    let made = [numbers(&[0x8241, 0o100_644, 0o22, 0]), b"new\0".to_vec(), groups].concat();
    let part = |size: u32| numbers(&[9, 0, 0, 0, size, 0, 0, 0, 2, 0]);
    vec![
        (
            "opening",
            request(
                26,
                &numbers(&[[7, 45, 131_072, u32::MAX, u32::MAX], [0; 5]].concat()),
                0,
            ),
        ),
        ("lookup", request(1, b"name\0", 0)),
        ("create", request(35, &made, 16)),
        (
            "rename",
            request(45, &[numbers(&[6, 0, 1, 0]), b"a\0b\0".to_vec()].concat(), 0),
        ),
        (
            "set",
            request(
                4,
                &numbers(&[[0x7ff, 0, 9, 0, 100, 0, 0, 0], [1; 8], [0o644; 8]].concat()),
                0,
            ),
        ),
        ("read", request(15, &part(4096), 0)),
        ("write", request(16, &[part(4), b"data".to_vec()].concat(), 0)),
        (
            "lock",
            request(33, &numbers(&[9, 0, 1, 0, 0, 0, 0, 0, 1, 4242, 1, 0]), 0),
        ),
        (
            "attribute",
            request(21, &[numbers(&[3, 0]), b"user.a\0abc".to_vec()].concat(), 0),
        ),
        ("forget", request(42, &numbers(&[1, 0, 5, 0, 2, 0]), 0)),
        ("list", request(44, &part(32 << 10), 0)),
    ]
}

// ---------------------------------------------------------------- what the agent asks a mount, see crates/collect/src/fuse/asking.rs

fn asked() -> Vec<Seed> {
    let question = |kind: u32, ino: u64, dir: u64, name: &[u8]| {
        let mut bytes = [kind.to_ne_bytes(), (name.len() as u32).to_ne_bytes()].concat();
        bytes.extend([ino, dir].into_iter().flat_map(u64::to_ne_bytes));
        bytes.extend(name);
        bytes
    };
    let all: Vec<Vec<u8>> = (1..=5)
        .map(|kind| question(kind, 12, 2, if kind == 5 { b"name" } else { b"" }))
        .collect();
    vec![
        ("all", all.concat()),
        ("went", question(5, 12, 0, b"")),
        ("long", question(5, 12, 2, &[b'n'; 255])),
        ("too-long", question(5, 12, 2, &[b'n'; 256])),
        ("cut", all.concat()[..30].to_vec()),
    ]
}

// ---------------------------------------------------------------- plans and ledgers, see crates/removal/src/candidate.rs and ledger.rs

fn plans() -> Vec<Seed> {
    let candidate = |flags: u8, dir: &[u8]| {
        let mut out = vec![flags];
        if flags & 4 == 0 {
            out.push(dir.len() as u8);
            out.extend(dir);
        }
        out.extend([1, b'n', 12, 0, 100, 1, 0, 1, 0]);
        (0..5u32).for_each(|n| out.extend((1_700_000_000 + n).to_le_bytes()));
        out.extend([0, 1]);
        out
    };
    let boot = [&[0u8][..], &[0; 16]].concat();
    let entry = |kind: u8, rest: &[u8]| [&[0xff, kind, 0, 0], rest].concat();
    vec![
        ("candidate", [vec![0], candidate(0, b"a/b")].concat()),
        (
            "candidates",
            [vec![0], candidate(0, b"a"), candidate(5, b""), candidate(2, b"")].concat(),
        ),
        (
            "ledger",
            [
                vec![1],
                boot,
                entry(1, &[3]),
                entry(2, &[0, 1, 2]),
                entry(4, &[2]),
            ]
            .concat(),
        ),
    ]
}
