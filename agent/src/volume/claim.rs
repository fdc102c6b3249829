//! One agent removes what is in a volume: the one whose token lies in the volume's trash.
//!
//! ```text
//!   .purge-agent-trash/agent -> "ID BOOT NAMESPACE PROCESS HOST"      a link that leads nowhere; its time is renewed every half minute
//! ```
//! Another agent (in a container, with a state directory of its own) knows nothing of this one's holds and uses. The second one says so and
//! removes nothing. It takes over when the token's time has not moved for some minutes of its own clock, so a token that was copied with
//! the volume, or that an agent left when it was killed, keeps no other out for ever. No lock does: an open file would keep the volume
//! mounted.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::Volume;
use super::health::State;
use purge_model::{Inode, Seconds};
use purge_removal::trash::Trash;
use purge_sys::{inside, stat, time};

const TOKEN: &CStr = c"agent";
const NEXT: &CStr = c"agent.next";
/// A link as short as this takes an inode and no block.
const TOKEN_BYTES_MAX: usize = 59;
const RENEW_EVERY: Duration = Duration::from_secs(30);
/// How often it is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A token whose time has not moved for so long is left over.
const STALE_AFTER: Duration = Duration::from_secs(150);
/// For tests: this number of seconds instead.
const STALE_VARIABLE: &str = "PURGE_AGENT_TOKEN_SECONDS";

/// What this agent knows of the token.
#[derive(Debug)]
pub(super) struct Claim {
    own: Token,
    renewed: Option<Instant>,
    stale_after: Duration,
    /// Another agent's token, or none, as it was met first: what it said, its time, and since when it is so.
    other: Option<(Option<Token>, (Seconds, u32), Instant)>,
    /// The token was looked at before.
    has_looked: bool,
}

/// Who watches the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    /// The state directory.
    id: u64,
    boot: String,
    /// The process namespace.
    namespace: u64,
    process: u32,
    host: String,
}

impl Token {
    /// This process, whose state directory this is.
    fn own(id: u64) -> Self {
        let boot = time::boot_id();
        let (a, b) = (boot.first(), boot.get(1));
        let boot = format!("{:02x}{:02x}", a.copied().unwrap_or(0), b.copied().unwrap_or(0));
        let namespace = fs::read_link("/proc/self/ns/pid").ok();
        let namespace = namespace.and_then(|link| {
            let link = link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?;
            link.parse().ok()
        });
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host = host.chars().filter(char::is_ascii_graphic).collect();
        Self {
            id,
            boot,
            namespace: namespace.unwrap_or(0),
            process: std::process::id(),
            host,
        }
    }

    fn write(&self) -> String {
        let (id, boot) = (self.id, &self.boot);
        let mut text = format!(
            "{id:x} {boot} {:x} {} {}",
            self.namespace, self.process, self.host
        );
        // Every character of it has one byte.
        text.truncate(TOKEN_BYTES_MAX);
        text
    }

    fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut parts = text.splitn(5, ' ');
        Some(Self {
            id: u64::from_str_radix(parts.next()?, 16).ok()?,
            boot: parts.next()?.to_owned(),
            namespace: u64::from_str_radix(parts.next()?, 16).ok()?,
            process: parts.next()?.parse().ok()?,
            host: parts.next()?.to_owned(),
        })
    }

    fn is(&self, other: &Self) -> bool {
        let of = |t: &Self| (t.id, t.boot.clone(), t.namespace, t.process);
        of(self) == of(other)
    }

    /// Whether its agent is known not to run any more: it was of another boot of this kernel, or there is no such process.
    fn is_over(&self, own: &Self) -> bool {
        if self.boot != own.boot {
            return true;
        }
        let name = || fs::read_to_string(format!("/proc/{}/comm", self.process));
        self.namespace == own.namespace && !name().is_ok_and(|name| name.trim() == "purge-agent")
    }
}

/// What a look at the token says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// It is this agent's.
    Own,
    /// It is another's, or it was until a moment ago.
    Others(String),
}

impl Claim {
    /// For the agent with this state directory.
    pub(super) fn of(state_dir: (stat::Device, Inode)) -> Self {
        let (device, ino) = state_dir;
        let id = ino ^ (u64::from(device.major) << 52) ^ (u64::from(device.minor) << 40);
        let seconds = std::env::var(STALE_VARIABLE).ok().and_then(|s| s.parse().ok());
        Self {
            own: Token::own(id),
            renewed: None,
            stale_after: seconds.map_or(STALE_AFTER, Duration::from_secs),
            other: None,
            has_looked: false,
        }
    }

    /// Looks at the token in the trash, renews it or takes it over.
    fn look(&mut self, trash: &OwnedFd) -> io::Result<Found> {
        let is_first = !std::mem::replace(&mut self.has_looked, true);
        let found = read(trash)?;
        let (there, time) = match &found {
            Some((token, time)) => (token.as_ref(), *time),
            None => (None, (Seconds::MIN, 0)),
        };
        if there.is_some_and(|token| token.is(&self.own)) {
            return self.renew(trash).map(|()| Found::Own);
        }
        let free = match (&found, there) {
            (None, _) => self.other.is_none(),
            (_, Some(token)) => is_first && (token.id == self.own.id || token.is_over(&self.own)),
            // It makes no sense.
            (Some(_), None) => true,
        };
        let known = self.other.as_ref();
        let known = known.filter(|(token, at, _)| token.as_ref() == there && *at == time);
        let since = known.map_or_else(Instant::now, |(.., since)| *since);
        if free || since.elapsed() >= self.stale_after {
            self.take(trash)?;
            self.other = None;
            return Ok(Found::Own);
        }
        self.other = Some((there.cloned(), time, since));
        self.renewed = None;
        Ok(Found::Others(words(there)))
    }

    fn take(&mut self, trash: &OwnedFd) -> io::Result<()> {
        let _ = inside::unlink(trash, NEXT);
        inside::write_note(trash, NEXT, self.own.write().as_bytes())?;
        inside::move_over(trash, NEXT, trash, TOKEN)?;
        self.renewed = Some(Instant::now());
        Ok(())
    }

    fn renew(&mut self, trash: &OwnedFd) -> io::Result<()> {
        let every = RENEW_EVERY.min(self.stale_after / 5);
        if self.renewed.is_none_or(|at| at.elapsed() >= every) {
            inside::renew(trash, TOKEN, NEXT)?;
            self.renewed = Some(Instant::now());
        }
        Ok(())
    }
}

/// A token that makes no sense is none.
type Known = (Option<Token>, (Seconds, u32));

fn read(trash: &OwnedFd) -> io::Result<Option<Known>> {
    let found = match stat::entry(trash, TOKEN) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let token = inside::read_note(trash, TOKEN).ok();
    let token = token.and_then(|text| Token::read(&text));
    Ok(Some((token, (found.stat.ctime, found.stat.ctime_nanos))))
}

fn words(token: Option<&Token>) -> String {
    let who = match token {
        Some(token) => format!(
            "another agent watches this volume: process {} on host {}",
            token.process, token.host
        ),
        None => "another agent has watched this volume until a moment ago".into(),
    };
    format!(
        "{who}, with another state directory, so the holds of one do not bind the other. This one plans and removes nothing until the other has \
         ended for some minutes: stop one of them, or remove the volume from its configuration"
    )
}

impl Volume {
    /// Why this agent must not remove anything of the volume: another one does.
    pub fn other_agent(&self) -> Option<String> {
        if self.config.only_looks {
            return None;
        }
        let found = self.look_at_token();
        let words = match found {
            Ok(Found::Own) => None,
            Ok(Found::Others(words)) => Some(words),
            // Nothing can be removed then, and other looks say why.
            Err(error) => {
                tracing::debug!(volume = %self.config.name, %error, "the token in the trash cannot be kept");
                return self.health.lock().second.clone();
            }
        };
        let mut health = self.health.lock();
        let known = std::mem::replace(&mut health.second, words.clone());
        drop(health);
        match (known, &words) {
            (None, Some(words)) => tracing::error!(volume = %self.config.name, "{words}"),
            (Some(_), None) => {
                tracing::warn!(volume = %self.config.name, "no other agent watches the volume any more: this one takes over");
            }
            _ => {}
        }
        words
    }

    fn look_at_token(&self) -> io::Result<Found> {
        let mut claim = self.claim.lock();
        let trash = match Trash::open(&self.watched)? {
            Some(trash) => trash,
            // A volume that cannot be written to, or was not wholly seen yet, gets no trash.
            None if matches!(self.condition().state, State::Tracking) => Trash::open_or_make(&self.watched)?,
            None => return Ok(Found::Own),
        };
        match claim.look(trash.dir()) {
            // The reserve is for that.
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => trash.with_ballast(|dir| claim.look(dir)),
            other => other,
        }
    }

    /// The agent ends: another one need not wait.
    pub(super) fn give_up_claim(&self) {
        if self.silence().is_some() {
            // Another agent takes over when it has become old.
            return;
        }
        let claim = self.claim.lock();
        if let Ok(Some(trash)) = Trash::open(&self.watched)
            && let Ok(Some((Some(token), _))) = read(trash.dir())
            && token.is(&claim.own)
        {
            let _ = inside::unlink(trash.dir(), TOKEN);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use purge_sys::beneath;

    fn token(id: u64, process: u32) -> Token {
        Token {
            process,
            ..Token::own(id)
        }
    }

    fn claim(own: Token, stale: u64) -> Claim {
        Claim {
            own,
            renewed: None,
            stale_after: Duration::from_millis(stale),
            other: None,
            has_looked: false,
        }
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_fits() {
        let mut own = Token::own(u64::MAX);
        own.host = "h".repeat(200);
        let text = own.write();
        assert!(text.len() <= TOKEN_BYTES_MAX);
        assert!(Token::read(text.as_bytes()).unwrap().is(&own));
        assert_eq!(Token::read(b"\xff"), None);
    }

    #[test]
    fn the_second_waits_until_the_token_is_left_over() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = beneath::open_root(tmp.path()).unwrap();
        // The test's own process is none of an agent, so only the time of the token counts.
        let mut first = claim(token(1, 1), 200);
        let mut second = claim(token(2, 2), 200);
        second.has_looked = true;
        assert_eq!(first.look(&dir).unwrap(), Found::Own);
        for _ in 0..8 {
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(first.look(&dir).unwrap(), Found::Own);
            assert!(matches!(second.look(&dir).unwrap(), Found::Others(_)));
        }
        std::thread::sleep(Duration::from_millis(250));
        assert_eq!(second.look(&dir).unwrap(), Found::Own);
        assert!(matches!(first.look(&dir).unwrap(), Found::Others(_)));
        // One that begins while no process of the token's lives takes it at once.
        let mut third = claim(token(3, 3), 200);
        assert_eq!(third.look(&dir).unwrap(), Found::Own);
    }
}
