//! Measures purge-agent beside its peers, on the same machine in the same run: ratios count, not seconds.
//!
//! ```text
//! purge-bench [FILES]          as root; bench/run builds everything and calls it
//! purge-bench apply [FILES]    applying plans only
//! purge-bench hot              files that are used all the time only
//! purge-bench ways             what each way of watching costs, hot files and first uses, in one table
//! purge-bench race [ACCESSES [A_SECOND]] [--ours]   is anything lost that was used while it was purged?
//! purge-bench growth FILES...  how costs grow with the number of files, in one table
//! purge-bench links [NAMES [INODES]]   files with very many names
//! purge-bench plans FILES...   what the agent's memory does while it removes as many files, in one table
//! purge-bench far [FILES]      `purge-agent once` on a file server whose answers come 3 ms late
//! purge-bench scan [FILES]     a cold scan of a local disk beside find
//! purge-bench mount            what a mount of the agent's costs those who use files through it
//! purge-bench storm ...        a reader of the event storm; see `storm`
//! purge-bench read ...         another reader; see `reading`
//! ```
//! - `command`   children that end when the bench is interrupted
//! - `image`     a fresh noatime ext4 on a loop device, with a tree
//! - `agent`     the agent under measurement and its command line
//! - `stages`    what is measured: scan, plan, storm
//! - `race`      uses while files are purged
//! - `purging`   applying plans beside find -delete
//! - `bare`      what the guarded delete cannot do without, alone
//! - `collecting` what collecting costs those who use files, and the agent
//! - `ways`      the same for each way of watching
//! - `reading`   readers of hot files, and of each file once
//! - `growth`    how costs grow with the number of files
//! - `links`     files with very many names
//! - `plans`     memory by the size of a plan
//! - `storm`     readers that open files as fast as they can
//! - `job`       `purge-agent once`: on a far file server, and its cold scan of a disk
//! - `floor`     what the machine itself gives there: the same requests by plain loops
//! - `through`   files that are used through a mount of the agent's
//! - `measure`   stopwatch, medians, memory, space
//! - `machine`   what it all ran on
//! - `report`    the table
//!
//! Everything it makes lies in one temporary directory below `TMPDIR`. Guards take it down again, last made first,
//! also after an error or a signal.

mod agent;
mod bare;
mod collecting;
mod command;
mod floor;
mod growth;
mod image;
mod job;
mod links;
mod machine;
mod measure;
mod plans;
mod purging;
mod race;
mod reading;
mod report;
mod stages;
mod storm;
mod through;
mod ways;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use report::Report;
use stages::Bench;

const USAGE: &str = "usage: purge-bench [FILES] | purge-bench apply [FILES] | purge-bench hot | purge-bench ways | purge-bench race [ACCESSES [A_SECOND]] [--ours] | purge-bench growth FILES... | purge-bench links [NAMES [INODES]] | purge-bench plans FILES... | purge-bench far [FILES] | purge-bench scan [FILES] | purge-bench mount";
const FILES_DEFAULT: usize = 1_000_000;
/// As many on each kind of file system.
const ACCESSES_DEFAULT: u64 = 1_000_000;
/// Accesses a second.
const RATE_DEFAULT: u64 = 20_000;
/// What a race needs of space, in files of a tree.
const RACE_PLACE_FILES: usize = 1_000_000;
/// Fewer make figures of nothing but process starts.
const FILES_MIN: usize = 1_000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.split_first() {
        Some((mode, rest)) if mode == storm::MODE => storm::read_files(rest),
        Some((mode, rest)) if mode == reading::MODE => reading::read_files(rest),
        Some((mode, rest)) if mode == "growth" => by_size(mode, rest, growth::measure),
        Some((mode, rest)) if mode == "plans" => by_size(mode, rest, plans::measure),
        Some((mode, rest)) if mode == "race" => {
            let ours = rest.iter().any(|arg| arg == "--ours");
            let numbers: Result<Vec<u64>, _> = rest
                .iter()
                .filter(|arg| *arg != "--ours")
                .map(|n| n.parse())
                .collect();
            match numbers {
                Ok(numbers) => {
                    let accesses = numbers.first().copied().unwrap_or(ACCESSES_DEFAULT);
                    let rate = numbers.get(1).copied().unwrap_or(RATE_DEFAULT);
                    in_a_place(RACE_PLACE_FILES, |bench| {
                        race::measure(bench, accesses, rate, ours)
                    })
                }
                Err(_) => Err(anyhow::anyhow!(
                    "race takes a number of accesses, and how many a second: race 1000000 20000"
                )),
            }
        }
        Some((mode, rest)) if mode == "links" => match rest.iter().map(|n| n.parse()).collect() {
            Ok(numbers) => {
                let numbers: Vec<usize> = numbers;
                let names = numbers.first().copied().unwrap_or(links::NAMES_DEFAULT);
                let inodes = numbers.get(1).copied().unwrap_or(links::INODES_DEFAULT);
                in_a_place(names, |bench| links::measure(bench, names, inodes))
            }
            Err(_) => Err(anyhow::anyhow!(
                "links takes a number of names, and how many inodes share them: links 1000000 10"
            )),
        },
        Some((mode, rest)) if mode == "apply" => match files_wanted(rest) {
            Ok(files) => bench(files, purging::measure),
            Err(error) => Err(error),
        },
        Some((mode, rest)) if mode == "far" => match job::files_wanted(rest) {
            Ok(files) => in_a_place(files, job::far),
            Err(error) => Err(error),
        },
        Some((mode, rest)) if mode == "scan" => match job::files_wanted(rest) {
            Ok(files) => in_a_place(files, job::cold_scan),
            Err(error) => Err(error),
        },
        Some((mode, [])) if mode == "mount" => in_a_place(FILES_MIN, through::measure),
        Some((mode, [])) if mode == "hot" => bench(stages::HOT_TREE, Bench::use_of_hot_files),
        Some((mode, [])) if mode == "ways" => in_a_place(2 * ways::FILES, ways::measure),
        _ => match files_wanted(&args) {
            Ok(files) => bench(files, measure_everything),
            Err(error) => {
                eprintln!("purge-bench: {error:#}\n{USAGE}");
                return ExitCode::from(2);
            }
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if command::interrupted() => {
            eprintln!("purge-bench: interrupted");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("purge-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn by_size(mode: &str, sizes: &[String], measure: fn(&Bench, &[usize]) -> Result<()>) -> Result<()> {
    let sizes: Result<Vec<usize>, _> = sizes.iter().map(|size| size.parse()).collect();
    let sizes = sizes.ok().filter(|sizes| !sizes.is_empty());
    let sizes =
        sizes.with_context(|| format!("{mode} takes numbers of files: {mode} 1000000 3000000 10000000"))?;
    let most = sizes.iter().copied().max().unwrap_or(0);
    in_a_place(most, |bench| measure(bench, &sizes))
}

fn files_wanted(args: &[String]) -> Result<usize> {
    let files = match args {
        [] => FILES_DEFAULT,
        [files] => files
            .parse()
            .with_context(|| format!("FILES: '{files}' is no number"))?,
        _ => bail!("one argument at most"),
    };
    ensure!(files >= FILES_MIN, "at least {FILES_MIN} files are needed");
    Ok(files)
}

/// Every stage, in this order.
fn measure_everything(bench: &Bench, report: &mut Report) -> Result<()> {
    bench.use_of_a_large_tree(report)?;
    bench.use_of_hot_files(report)?;
    purging::measure(bench, report)
}

fn bench(files: usize, measure: fn(&Bench, &mut Report) -> Result<()>) -> Result<()> {
    in_a_place(files, |bench| {
        println!(
            "{files} files on ext4 (noatime) on a loop image below {}",
            std::env::temp_dir().display()
        );
        let mut report = Report::default();
        let done = measure(bench, &mut report);
        // What was measured before something failed is worth seeing, too.
        println!("\n{report}");
        done
    })
}

/// Checks what measuring needs, says what it runs on, and measures in a directory that is removed afterwards.
fn in_a_place(files: usize, measure: impl FnOnce(&Bench) -> Result<()>) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "mounting and fanotify need root"
    );
    command::end_children_on_signals()?;
    let place = tempfile::Builder::new()
        .prefix("purge-bench.")
        .tempdir()
        .context("cannot make a directory below TMPDIR")?;
    let bench = Bench {
        programs: beside_this_program()?,
        place: place.path().into(),
        files,
    };
    println!("{}", machine::describe()?);
    let done = measure(&bench);
    let removed = place.close().context("cannot remove the temporary directory");
    done.and(removed)
}

/// The directory that holds the programs of the same build.
fn beside_this_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let dir = this.parent().context("this program lies nowhere")?.to_path_buf();
    for program in ["purge-agent", "purgectl", "gentree"] {
        ensure!(
            dir.join(program).is_file(),
            "{} has no {program}; bench/run builds it",
            dir.display()
        );
    }
    Ok(dir)
}
