//! What the agent makes of NFS clients, with a real server and real clients, over both versions of the protocol.
//!
//! Clients of the kernel keep pages and may not ask the server at all: that is not what these tests are about (libnfs keeps nothing).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use purge_tests::ctl::{number, tally};
use purge_tests::files::{age_tree, append, assert_same, make, regular_files};
use purge_tests::nfs::{Client, Server, Version};
use purge_tests::wait::{Ends, until_same};
use purge_tests::{Agent, Config, Fs, Mount, need};

/// Each promise by each version.
macro_rules! by_every_version {
    ($($promise:ident),+ $(,)?) => {
        mod v3 { $( #[test] fn $promise() {
            let mount = purge_tests::need!(purge_tests::Mount::new(purge_tests::Fs::Ext4));
            let server = purge_tests::need!(purge_tests::nfs::Server::export(&mount.dir("export")));
            super::$promise(&mount, &server, purge_tests::nfs::Version::V3);
        } )+ }
        mod v4 { $( #[test] fn $promise() {
            let mount = purge_tests::need!(purge_tests::Mount::new(purge_tests::Fs::Ext4));
            let server = purge_tests::need!(purge_tests::nfs::Server::export(&mount.dir("export")));
            super::$promise(&mount, &server, purge_tests::nfs::Version::V4);
        } )+ }
    };
}

by_every_version!(
    reads_and_writes_count_and_listings_do_not,
    what_a_client_comes_back_to_or_holds_open_survives_an_apply,
    a_client_that_comes_at_the_moment_of_the_purge_sees_all_or_nothing,
);

/// What `files::make` puts into each file.
const BYTES: u64 = 20;

/// nfs-ganesha opens every file whose attributes a client asks for. That its reads count, and its opens do not, is for the operator
/// to say: a client that has all of a file in its cache may open it, and read nothing from the server.
const OPENS_ARE_NO_USE: &str = "ignore_accessors = [ { comm = \"ganesha.nfsd\", what = \"opens\" } ]";

fn config(mount: &Mount, volume_keys: &str) -> Config {
    Config::new(&mount.path(), &format!("baseline = \"mtime\"\n{volume_keys}")).rule(
        "old",
        "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false",
    )
}

/// A path of the export as its clients name it.
fn remote(mount: &Mount, path: &Path) -> String {
    let below = path.strip_prefix(mount.path().join("export")).unwrap();
    format!("/{}", below.display())
}

fn reads_and_writes_count_and_listings_do_not(mount: &Mount, server: &Server, version: Version) {
    const EACH: usize = 10;
    let files = make(&mount.path().join("export/d"), 6 * EACH);
    age_tree(&mount.path());
    let agent = Agent::tracking(&config(mount, OPENS_ARE_NO_USE));
    let ctl = agent.ctl();
    let all: BTreeSet<PathBuf> = files.iter().cloned().collect();
    assert_same("everything has expired", &ctl.candidate_files(), &all);
    let mut client = server.client(version);

    assert_eq!(client.must("list /d"), all.len() as u64);
    for file in &files {
        assert_eq!(client.must(&format!("stat {}", remote(mount, file))), BYTES);
    }
    until_same("looking is no use", &all, || ctl.candidate_files());

    let group = |n: usize| files.iter().skip(n * EACH).take(EACH);
    for file in group(0) {
        assert_eq!(client.must(&format!("read {}", remote(mount, file))), BYTES);
    }
    for file in group(1) {
        client.must(&format!("append {} more", remote(mount, file)));
    }
    // A new name is no use, and the file goes under it.
    let mut expected: BTreeSet<PathBuf> = files.iter().skip(2 * EACH).cloned().collect();
    for file in group(2) {
        let renamed = file.with_extension("renamed");
        client.must(&format!(
            "rename {} {}",
            remote(mount, file),
            remote(mount, &renamed)
        ));
        expected.remove(file);
        expected.insert(renamed);
    }
    let planned = ctl.candidate_files();
    assert!(
        group(0).chain(group(1)).all(|f| !planned.contains(f)),
        "used by a client, and in the plan: {planned:?}"
    );
    until_same("what no client used", &expected, || ctl.candidate_files());
}

#[test]
fn looking_through_the_server_is_in_doubt_and_counts_until_the_operator_says_otherwise() {
    let mount = need!(Mount::new(Fs::Ext4));
    let server = need!(Server::export(&mount.dir("export")));
    let files = make(&mount.path().join("export/d"), 20);
    age_tree(&mount.path());
    let agent = Agent::tracking(&config(&mount, ""));
    let ctl = agent.ctl();
    let mut client = server.client(Version::V4);
    for file in files.iter().take(5) {
        client.must(&format!("stat {}", remote(&mount, file)));
    }
    let expected: BTreeSet<PathBuf> = files.iter().skip(5).cloned().collect();
    until_same("what the server has not opened", &expected, || {
        ctl.candidate_files()
    });
}

fn what_a_client_comes_back_to_or_holds_open_survives_an_apply(
    mount: &Mount,
    server: &Server,
    version: Version,
) {
    const EACH: usize = 10;
    let files = make(&mount.path().join("export/d"), 6 * EACH);
    age_tree(&mount.path());
    let agent = Agent::tracking(&config(mount, OPENS_ARE_NO_USE));
    let ctl = agent.ctl();
    let mut client = server.client(version);
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/files"), files.len() as u64);

    let group = |n: usize| files.iter().skip(n * EACH).take(EACH);
    for file in group(0) {
        client.must(&format!("open {}", remote(mount, file)));
    }
    // Over v3 the server knows of no open: only of what is read.
    client.must("again");
    for file in group(1) {
        client.must(&format!("read {}", remote(mount, file)));
    }
    // And a process on the host itself.
    group(2).for_each(|f| append(f));

    let run = ctl.apply(&plan).ok().json();
    let counts = tally(&plan, &run);
    assert_eq!(counts.skipped, 3 * EACH as u64, "{run}");
    let used: BTreeSet<PathBuf> = files.iter().take(3 * EACH).cloned().collect();
    assert_same(
        "what was used",
        &regular_files(&mount.path().join("export")),
        &used,
    );
    assert_eq!(client.must("again"), EACH as u64 * BYTES, "they are whole");
    assert_eq!(client.must("close"), EACH as u64);
}

/// Between the comparison and the unlink lie some microseconds, and a batch: without leases a few files go just after they were read.
fn a_client_that_comes_at_the_moment_of_the_purge_sees_all_or_nothing(
    mount: &Mount,
    server: &Server,
    version: Version,
) {
    let export = mount.path().join("export");
    let files = make(&export.join("d"), 3000);
    age_tree(&mount.path());
    let agent = Agent::tracking(&config(mount, OPENS_ARE_NO_USE));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let done = AtomicBool::new(false);
    let mut clients = [server.client(version), server.client(version)];
    let (run, seen) = std::thread::scope(|scope| {
        let (done, files) = (&done, &files);
        let ends = Ends(done);
        let reading: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(i, client)| scope.spawn(move || read_until(done, client, mount, files, i)))
            .collect();
        let answer = ctl.run([
            "apply",
            &plan.id,
            "--yes",
            "--max-rate",
            "600",
            "--output",
            "json",
        ]);
        drop(ends);
        let seen: Vec<Seen> = reading.into_iter().map(|r| r.join().unwrap()).collect();
        (answer.ok().json(), seen)
    });
    tally(&plan, &run);
    let read: BTreeSet<PathBuf> = seen.iter().flat_map(|s| s.whole.iter().cloned()).collect();
    let gone: usize = seen.iter().map(|s| s.gone).sum();
    assert!(
        read.len() > 100 && gone > 100,
        "the clients came in time and late: {} read, {gone} deleted; {run}",
        read.len()
    );
    let left = regular_files(&export);
    assert!(left.is_subset(&read), "left though no client read it");
    let lost = read.difference(&left).count();
    assert!(
        lost * 100 <= read.len(),
        "read, and deleted: {lost} of {}",
        read.len()
    );
    for file in &left {
        let bytes = std::fs::metadata(file).unwrap().len();
        assert_eq!(bytes, BYTES, "{} was cut", file.display());
    }
}

/// What a client met.
struct Seen {
    whole: Vec<PathBuf>,
    gone: usize,
}

/// Reads files in an order that is neither the plan's nor another client's.
fn read_until(done: &AtomicBool, client: &mut Client, mount: &Mount, files: &[PathBuf], seed: usize) -> Seen {
    let mut seen = Seen {
        whole: Vec::new(),
        gone: 0,
    };
    // 1,201 has no divisor in common with 3,000: every file's turn comes once.
    let turns = (0..files.len()).map(|n| &files[(n * 1201 + seed * 1500) % files.len()]);
    for file in turns {
        if done.load(Relaxed) {
            break;
        }
        match client.ask(&format!("read {}", remote(mount, file))) {
            Ok(bytes) => {
                assert_eq!(bytes, BYTES, "{} was cut", file.display());
                seen.whole.push(file.clone());
            }
            Err(refused) => {
                const ENOENT: i32 = 2;
                const ESTALE: i32 = 116;
                assert!(
                    matches!(refused.errno, ENOENT | ESTALE),
                    "{}: {refused:?}",
                    file.display()
                );
                seen.gone += 1;
            }
        }
    }
    seen
}
