//! The agent's own time: what uses are recorded with and ages are judged by. No step of the wall clock moves it.
//!
//! ```text
//! agent time = time since boot + offset         the offset stays as it is while the host runs, also when the agent restarts
//! ```
//! - The wall clock **steps forward** (a wrong NTP server, a virtual machine that wakes up): the agent's time does not follow,
//!   so nothing expires by it. Ages are real seconds.
//! - It **steps back**: ages are judged with the earlier of the two clocks ([`judged`]), so neither the file system's
//!   stamps nor the recorded uses look older than they are. When the wall clock has stayed behind for
//!   [`BELIEVED_AFTER`], it is believed: the agent's time is set back, and every recorded use that lies ahead counts
//!   as one now.
//! - **Reboot**: how long the host was off is only known from the wall clock. The agent's time goes on no earlier than where
//!   it was. If the wall clock lies behind that, the agent cannot know how long the host was off ([`Start::unknown`]).
//!   A step forward in the first [`UNCERTAIN_FOR`] after a reboot corrects a wrong hardware clock: the agent's time
//!   follows, and the stretch counts as a gap, because everything may have been off for longer than was thought.
//!
//! The state is in `STATE_DIR/clock`, one frame: `kind:u8=21 version:u8 offset~ boot:16 bytes now~` (nanoseconds).

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use purge_format::frame::{Frames, put_frame};
use purge_format::integers::{Cursor, put_signed};
use purge_model::Seconds;
use purge_sys::time::{self, BootId};

const KIND: u8 = 21;
const VERSION: u8 = 1;
const SECOND: i64 = 1_000_000_000;
/// A smaller difference between the clocks is no step worth a word.
pub const STEP: Duration = Duration::from_secs(60);
/// A wall clock that stayed behind for so long is believed.
const BELIEVED_AFTER: Duration = Duration::from_secs(3600);
/// So long after boot the wall clock may still be corrected by NTP.
const UNCERTAIN_FOR: Duration = Duration::from_secs(3600);

/// Until a state was loaded, the agent's time is the wall clock's.
const UNSET: i64 = i64::MIN;
static OFFSET: AtomicI64 = AtomicI64::new(UNSET);

/// One look at the clocks: nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Since 1970, as the wall clock has it.
    pub wall: i64,
    /// Since boot.
    pub boot: i64,
    /// Which boot.
    pub boot_id: BootId,
}

/// What is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// Agent time less time since boot, nanoseconds.
    pub offset: i64,
    /// The boot in which that holds.
    pub boot_id: BootId,
    /// Agent time when it was saved.
    pub now: i64,
}

/// How the agent's time began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Agent time less time since boot.
    pub offset: i64,
    /// The host was booted since, or nothing is known of the time before.
    pub rebooted: bool,
    /// It is unknown how much time has passed: the wall clock lies behind the agent's own.
    pub unknown: bool,
}

/// Where the agent's time goes on. Pure.
pub fn begin(saved: Option<Saved>, reading: Reading) -> Start {
    let by_wall = reading.wall.saturating_sub(reading.boot);
    match saved {
        None => Start {
            offset: by_wall,
            rebooted: true,
            unknown: false,
        },
        Some(s) if s.boot_id == reading.boot_id => Start {
            offset: s.offset,
            rebooted: false,
            unknown: false,
        },
        Some(s) => Start {
            offset: by_wall.max(s.now.saturating_sub(reading.boot)),
            rebooted: true,
            unknown: reading.wall < s.now.saturating_sub(nanos(STEP)),
        },
    }
}

/// What a look at both clocks asks for. Pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    None,
    /// The wall clock is ahead by this many nanoseconds: the agent's time stays.
    Ahead(i64),
    /// The wall clock was behind by this many nanoseconds for long: the agent's time is set back to it.
    Back(i64),
    /// The wall clock was corrected after a reboot: the agent's time follows it.
    Corrected(i64),
}

/// Judges the difference `wall - agent`, which has been negative for `behind_for`, at `since_boot`. Pure.
pub fn judge(difference: i64, behind_for: Duration, rebooted: bool, since_boot: i64) -> Step {
    let step = nanos(STEP);
    if difference > step {
        return match rebooted && since_boot < nanos(UNCERTAIN_FOR) {
            true => Step::Corrected(difference),
            false => Step::Ahead(difference),
        };
    }
    if difference < -step && behind_for >= BELIEVED_AFTER {
        return Step::Back(difference.saturating_neg());
    }
    Step::None
}

fn nanos(d: Duration) -> i64 {
    i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)
}

fn seconds(nanoseconds: i64) -> Seconds {
    Seconds::from_unix(nanoseconds.div_euclid(SECOND))
}

fn agent_nanos() -> i64 {
    match OFFSET.load(Relaxed) {
        UNSET => time::wall(),
        offset => time::since_boot().saturating_add(offset),
    }
}

/// The agent's time.
pub fn now() -> Seconds {
    seconds(agent_nanos())
}

/// What ages are judged with: the earlier of the agent's time and the wall clock's.
pub fn judged() -> Seconds {
    seconds(agent_nanos().min(time::wall()))
}

/// The wall clock's present moment.
pub fn wall() -> Seconds {
    time::wall_seconds()
}

/// How far the wall clock lies ahead of the agent's time, in whole seconds; negative: behind.
pub fn ahead_seconds() -> i64 {
    time::wall().saturating_sub(agent_nanos()) / SECOND
}

/// A change of the agent's time, for everyone who keeps times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Grows with each change.
    pub number: u64,
    /// What happened.
    pub step: Step,
}

/// Keeps the agent's time and its file.
#[derive(Debug)]
pub struct Keeper {
    file: PathBuf,
    /// How it began.
    pub start: Start,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Since when (since boot) the wall clock has been behind.
    behind_since: Option<i64>,
    change: Change,
}

impl Keeper {
    /// Goes on where `file` says; from now on [`now`] is the agent's time.
    pub fn load(file: &Path) -> Self {
        let reading = Reading {
            wall: time::wall(),
            boot: time::since_boot(),
            boot_id: time::boot_id(),
        };
        let saved = std::fs::read(file).ok().and_then(|bytes| decode(&bytes));
        let start = begin(saved, reading);
        OFFSET.store(start.offset, Relaxed);
        let step = Step::None;
        let keeper = Self {
            file: file.to_owned(),
            start,
            state: Mutex::new(State {
                behind_since: None,
                change: Change { number: 0, step },
            }),
        };
        keeper.save();
        keeper
    }

    /// The agent's time is no earlier than this: something was recorded then. True if it had to be moved.
    pub fn at_least(&self, at: Seconds) -> bool {
        let missing = at.unix().saturating_sub(now().unix());
        if missing <= 0 {
            return false;
        }
        OFFSET.fetch_add(missing.saturating_mul(SECOND), Relaxed);
        self.save();
        true
    }

    /// Looks at both clocks. To be called every few seconds; returns the last change of the agent's time.
    pub fn tick(&self) -> Change {
        let mut state = self.state.lock();
        let (boot, difference) = (time::since_boot(), time::wall().saturating_sub(agent_nanos()));
        if difference >= -nanos(STEP) {
            state.behind_since = None;
        } else {
            state.behind_since.get_or_insert(boot);
        }
        let behind = state.behind_since.map_or(0, |since| boot.saturating_sub(since));
        let behind = Duration::from_nanos(u64::try_from(behind).unwrap_or(0));
        let step = judge(difference, behind, self.start.rebooted, boot);
        if matches!(step, Step::Back(_) | Step::Corrected(_)) {
            OFFSET.fetch_add(difference, Relaxed);
        }
        // That the wall clock is ahead is said once, not with every look.
        let is_news = !matches!(
            (step, state.change.step),
            (Step::None, _) | (Step::Ahead(_), Step::Ahead(_))
        );
        if is_news {
            state.change = Change {
                number: state.change.number.saturating_add(1),
                step,
            };
        }
        state.change
    }

    /// Saves the state. It is not precious: without it, the last times in the index are what the agent's time goes on from.
    pub fn save(&self) {
        let saved = Saved {
            offset: OFFSET.load(Relaxed),
            boot_id: time::boot_id(),
            now: agent_nanos(),
        };
        if let Err(error) = replace(&self.file, &encode(saved)) {
            tracing::debug!(%error, "the clock's state cannot be saved");
        }
    }
}

fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut out = purge_sys::private::create(&new)?;
    out.write_all(bytes)?;
    out.sync_data()?;
    std::fs::rename(new, file)
}

/// The file's content.
pub fn encode(saved: Saved) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(&mut out, |body| {
        body.extend_from_slice(&[KIND, VERSION]);
        put_signed(body, saved.offset);
        body.extend_from_slice(&saved.boot_id);
        put_signed(body, saved.now);
    });
    out
}

/// Reads the file's content.
pub fn decode(bytes: &[u8]) -> Option<Saved> {
    let mut from = Cursor::new(Frames::new(bytes).next()?, "clock");
    if (from.byte().ok()?, from.byte().ok()?) != (KIND, VERSION) {
        return None;
    }
    Some(Saved {
        offset: from.signed().ok()?,
        boot_id: from.take(16).ok()?.try_into().ok()?,
        now: from.signed().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 86_400 * SECOND;
    const HERE: BootId = [1; 16];
    const BEFORE: BootId = [2; 16];

    fn reading(wall: i64, boot: i64) -> Reading {
        Reading {
            wall,
            boot,
            boot_id: HERE,
        }
    }

    #[test]
    fn a_step_while_the_agent_was_down_moves_nothing() {
        let saved = Saved {
            offset: 100 * DAY,
            boot_id: HERE,
            now: 101 * DAY,
        };
        for wall in [0, 50 * DAY, 102 * DAY, 4000 * DAY] {
            let start = begin(Some(saved), reading(wall, 2 * DAY));
            assert_eq!((start.offset, start.unknown), (100 * DAY, false));
        }
    }

    #[test]
    fn after_a_reboot_time_goes_on_no_earlier_and_a_wrong_clock_is_known() {
        let saved = Saved {
            offset: 100 * DAY,
            boot_id: BEFORE,
            now: 150 * DAY,
        };
        let right = begin(Some(saved), reading(151 * DAY, SECOND));
        assert_eq!(right.offset + SECOND, 151 * DAY);
        assert!(!right.unknown);
        let wrong = begin(Some(saved), reading(10 * DAY, SECOND));
        assert_eq!(wrong.offset + SECOND, 150 * DAY);
        assert!(wrong.unknown && wrong.rebooted);
    }

    #[test]
    fn steps_are_judged() {
        let hour = Duration::from_secs(3600);
        assert_eq!(judge(SECOND, Duration::ZERO, true, 0), Step::None);
        assert_eq!(
            judge(30 * DAY, Duration::ZERO, false, SECOND),
            Step::Ahead(30 * DAY)
        );
        assert_eq!(judge(30 * DAY, Duration::ZERO, true, DAY), Step::Ahead(30 * DAY));
        assert_eq!(
            judge(30 * DAY, Duration::ZERO, true, SECOND),
            Step::Corrected(30 * DAY)
        );
        assert_eq!(judge(-30 * DAY, Duration::ZERO, false, DAY), Step::None);
        assert_eq!(judge(-30 * DAY, hour, false, DAY), Step::Back(30 * DAY));
    }

    proptest! {
        /// For any wall clock at a start: the agent's time never goes back, and within one boot it advances by
        /// exactly what has passed.
        #[test]
        fn the_agents_time_never_goes_back(
            now in 0i64..200 * DAY, offset in 0i64..100 * DAY, wall in 0i64..400 * DAY, boot in 0i64..100 * DAY, same: bool
        ) {
            let boot_id = if same { HERE } else { BEFORE };
            let start = begin(Some(Saved { offset, boot_id, now }), reading(wall, boot));
            if same {
                prop_assert_eq!(start.offset, offset);
            } else {
                prop_assert!(start.offset + boot >= now);
                prop_assert_eq!(start.unknown, wall < now - nanos(STEP));
            }
        }

        #[test]
        fn the_state_comes_back_as_it_was_saved(offset: i64, boot_id: [u8; 16], now: i64) {
            let saved = Saved { offset, boot_id, now };
            prop_assert_eq!(decode(&encode(saved)), Some(saved));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes);
        }
    }
}
