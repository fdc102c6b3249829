//! Stands before every service: looks who calls, whether they may, how many of their calls are open already, and whether there is
//! memory for one more.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::{Code, Request, Status};

use super::budget::{Budget, Charge, Share};
use super::incoming::Visit;
use super::members::Memberships;
use super::open::{Asked, AskedBody, Open, Watch, What};
use super::pages::ANSWER_BYTES_MAX;
use super::tally::{Counted, Tally};
use super::visitors::Visitors;
use crate::host::User;
use crate::roles::{self, Peer, Scope};
use purge_base::clock;
use purge_base::sight::Sight;
use purge_config::Access;

/// Calls that one client may have open at a time, over all of its connections. Those of root are as many as its scripts need.
const OPEN_CALLS_MAX: usize = 32;
const OPEN_CALLS_OF_ROOT_MAX: usize = 256;
/// What any call takes: its request, a step of its answer that waits, and what lies with HTTP/2.
const CALL_BYTES: u64 = 256 << 10;
/// Answers that are streams: others are made whole, and charged so before they are.
const STREAMS: [&str; 10] = [
    "CreatePlan",
    "ShowPlan",
    "Apply",
    "WatchRun",
    "Find",
    "FetchArchived",
    "ListArchive",
    "ListUsage",
    "Rescan",
    "VerifyArchive",
];
/// Answers that go on for as long as what they tell of. They hold the latest news, and nothing else.
const ENDLESS: [&str; 3] = ["Apply", "WatchRun", "Rescan"];
/// What stands for "no deadline" where a client gives one that lies further ahead (`grpc-timeout` has up to eight digits of hours).
const DEADLINE_MAX: Duration = Duration::from_secs(365 * 86_400);

/// What decides at the door. Shared by all connections.
#[derive(Debug, Default)]
pub struct Doors {
    access: RwLock<Access>,
    open: Tally,
    /// Memory of answers.
    pub budget: Budget,
    /// Open calls.
    pub watch: Watch,
    members: Memberships,
    /// What the log says of clients.
    visitors: Visitors,
}

/// Who calls, for the call itself.
#[derive(Debug, Clone)]
pub struct Caller {
    /// As it stands in records.
    pub name: String,
    /// The local user; none: a certificate.
    pub uid: Option<u32>,
    /// The local user's groups when they connected, as the kernel names them.
    pub gids: Arc<[u32]>,
    /// How much they see.
    pub scope: Scope,
    /// When they stop waiting for the answer.
    pub deadline: Option<Instant>,
    /// A plan of theirs has at most this number of candidates.
    pub candidates_max: u64,
    /// To whose memory and threads the call belongs.
    pub share: Share,
    /// The call, for what is charged to it.
    pub open: Arc<Open>,
}

impl Caller {
    /// Who makes a request: what the gate has found out.
    ///
    /// # Errors
    /// When the request has not come through the gate.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let found = request.extensions().get::<Self>().cloned();
        found.ok_or_else(|| Status::permission_denied("the caller is not known"))
    }

    /// Who asks, if only for what is theirs.
    pub fn user(&self) -> Option<User<'_>> {
        let name = &self.name;
        self.only().map(|uid| User {
            uid,
            name,
            gids: &self.gids,
        })
    }

    /// What they may know of the paths of a volume; none: all.
    pub fn sight(&self, root: &Path) -> Option<Sight> {
        self.only().map(|uid| Sight::of(root, uid, &self.gids))
    }

    /// The user that all of this is for; none: all users.
    pub fn only(&self) -> Option<u32> {
        match self.scope {
            Scope::All => None,
            Scope::Own { uid, .. } => Some(uid),
        }
    }
}

impl Doors {
    /// Lets in whom the configuration names.
    pub fn new(access: Access) -> Self {
        Self {
            access: RwLock::new(access),
            ..Self::default()
        }
    }

    /// Another configuration, from the next call on, also of clients that are connected already.
    pub fn replace(&self, access: Access) {
        *self.access.write() = access;
    }

    /// Who is at the other end by now: groups that they were taken off since they connected are no longer theirs. And why that is in
    /// doubt, if it is.
    async fn present(&self, peer: &Peer) -> (Peer, Option<String>) {
        let Peer::Local { uid, gids } = peer else {
            return (peer.clone(), None);
        };
        let with_roles: Vec<u32> = {
            let access = self.access.read();
            gids.iter()
                .copied()
                .filter(|gid| access.names_group(*gid))
                .collect()
        };
        // Root is root, and a user that has no role by a group loses none.
        let (gids, doubt) = match *uid == 0 || with_roles.is_empty() {
            true => (Vec::new(), None),
            false => match self.members.still_in(*uid, &with_roles).await {
                Ok(gids) => (gids, None),
                Err(doubt) => (Vec::new(), Some(doubt)),
            },
        };
        (Peer::Local { uid: *uid, gids }, doubt)
    }

    /// How much they may see, if they may make the call.
    fn scope(&self, peer: &Peer, (what, call): (What, &str)) -> Result<Scope, Status> {
        peer.still_stands(clock::wall().unix())
            .map_err(Status::unauthenticated)?;
        match what {
            What::Agent => roles::permit(peer, &self.access.read(), call)
                .map_err(|why| Status::permission_denied(format!("{why} of {}", host_name()))),
            // Health and reflection tell nothing of any user.
            What::Probe => Ok(Scope::All),
        }
    }

    /// Ends the open calls of clients whose certificate was revoked or has ended, or that have lost the role that a call needs.
    pub async fn end_forbidden(&self) {
        for open in self.watch.all() {
            let asked = &open.asked;
            let (peer, doubt) = self.present(&asked.peer).await;
            let why = match self.scope(&peer, (asked.what, &asked.call)) {
                // The accounts do not answer: that takes no role away.
                Err(why) if doubt.is_some() && why.code() == Code::PermissionDenied => continue,
                Err(why) => why,
                Ok(Scope::Own { .. }) if asked.scope == Scope::All && doubt.is_none() => {
                    Status::permission_denied("the role that this call needs was taken away; ask again")
                }
                Ok(_) => continue,
            };
            open.end(why, Instant::now());
        }
    }

    /// Whether they may, and have room for one more.
    fn admit(&self, peer: &Peer, (what, call): (What, &str)) -> Result<Admitted, Status> {
        let scope = self.scope(peer, (what, call))?;
        let access = self.access.read();
        let (share, max) = match (peer, scope, what) {
            (Peer::Local { uid: 0, .. }, ..) => (Share::Root, OPEN_CALLS_OF_ROOT_MAX),
            (_, Scope::All, What::Agent) => (Share::Role, OPEN_CALLS_MAX),
            _ => (Share::Ordinary, OPEN_CALLS_MAX),
        };
        let who = peer.name();
        let counted = self.open.count(&who, max).ok_or_else(|| {
            Status::resource_exhausted(format!(
                "{who} has {max} calls open already; let some of them end first"
            ))
        })?;
        let allowance = match what == What::Probe || STREAMS.contains(&call) {
            true => 0,
            false => ANSWER_BYTES_MAX as u64,
        };
        let charge = self
            .budget
            .charge(&who, share, CALL_BYTES.saturating_add(allowance))?;
        Ok(Admitted {
            scope,
            share,
            counted,
            charge: (charge, allowance),
            candidates_max: match (share, access.max_plan_files) {
                (Share::Root, _) | (_, 0) => u64::MAX,
                (_, max) => max,
            },
        })
    }
}

/// What this host calls itself: a client may be on another.
fn host_name() -> String {
    let names = rustix::system::uname();
    purge_proto::shown::Shown::name(names.nodename().to_bytes()).into_string()
}

/// A call that may come in.
#[derive(Debug)]
struct Admitted {
    scope: Scope,
    share: Share,
    counted: Counted,
    charge: (Charge, u64),
    candidates_max: u64,
}

/// A service behind the gate.
#[derive(Debug, Clone)]
pub struct Gate<S> {
    inner: S,
    what: What,
    doors: Arc<Doors>,
}

impl<S> Gate<S> {
    /// Puts the gate before a service.
    pub fn before(inner: S, what: What, doors: Arc<Doors>) -> Self {
        Self { inner, what, doors }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The one that is ready answers; a clone need not be.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let (doors, what) = (Arc::clone(&self.doors), self.what);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            match come_in(&doors, what, &head).await {
                Ok((caller, open)) => {
                    let request = http::Request::from_parts(head, body);
                    pass(inner, request, caller, open, what).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// Who calls, if they may.
async fn come_in(
    doors: &Doors,
    what: What,
    head: &http::request::Parts,
) -> Result<(Caller, Arc<Open>), Status> {
    let visit = head.extensions.get::<Visit>();
    let visit = visit.ok_or_else(|| Status::permission_denied("the caller is not known"))?;
    // From here on the connection is not silent.
    let busy = visit.line.call();
    let call = head.uri.path().rsplit('/').next().unwrap_or_default();
    let (peer, doubt) = doors.present(&visit.peer).await;
    let admitted = doors.admit(&peer, (what, call)).map_err(|status| {
        let status = match doubt {
            Some(doubt) if status.code() == Code::PermissionDenied => Status::unavailable(doubt),
            _ => status,
        };
        doors.visitors.refuse_call(&peer.name(), call, status.message());
        status
    })?;
    if what == What::Agent {
        let standing = roles::standing(&peer, &doors.access.read());
        doors.visitors.admit(&peer.name(), standing, call);
    }
    let is_endless = admitted.share == Share::Root || what == What::Agent && ENDLESS.contains(&call);
    let asked = Asked {
        peer: visit.peer.clone(),
        what,
        call: call.to_owned(),
        scope: admitted.scope,
    };
    let open = Open::new(asked, admitted.charge, busy, admitted.counted, is_endless);
    doors.watch.add(&open);
    let timeout = head.headers.get("grpc-timeout");
    let deadline = timeout.and_then(|t| t.to_str().ok()).and_then(parse_timeout);
    let caller = Caller {
        name: peer.name(),
        uid: match &peer {
            Peer::Local { uid, .. } => Some(*uid),
            _ => None,
        },
        gids: match &visit.peer {
            Peer::Local { gids, .. } => gids.as_slice().into(),
            _ => Arc::default(),
        },
        scope: admitted.scope,
        deadline: deadline.and_then(|t| Instant::now().checked_add(t)),
        candidates_max: admitted.candidates_max,
        share: admitted.share,
        open: Arc::clone(&open),
    };
    Ok((caller, open))
}

/// Lets a call through, and its answer out.
async fn pass<S>(
    mut inner: S,
    request: http::Request<Body>,
    caller: Caller,
    open: Arc<Open>,
    what: What,
) -> Result<http::Response<Body>, Infallible>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    let asked = Arc::clone(&open);
    // Reflection is asked again and again in one call.
    let mut request = request.map(|body| Body::new(AskedBody::new(asked, body, what == What::Probe)));
    request.extensions_mut().insert(caller);
    let answer = inner.call(request).await?;
    // The call is open until the last byte of its answer is taken.
    Ok(answer.map(|body| open.answer(body)))
}

/// `grpc-timeout`: up to eight digits and a unit.
pub fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    let time = match unit {
        "H" => Duration::from_secs(n.saturating_mul(3600)),
        "M" => Duration::from_secs(n.saturating_mul(60)),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    };
    Some(time.min(DEADLINE_MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_has_them() {
        let read = |text| parse_timeout(text);
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("1S"), Some(Duration::from_secs(1)));
        assert_eq!(read("99999999H"), Some(DEADLINE_MAX));
        for bad in ["", "S", "1", "-1S", "123456789S", "1x", "1\u{e4}"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn open_calls_of_a_client_are_bounded_and_given_back() {
        let doors = Doors::new(Access {
            own: true,
            ..Access::default()
        });
        let peer = |uid| Peer::Local { uid, gids: vec![] };
        let mut held: Vec<_> = (0..OPEN_CALLS_MAX)
            .map(|_| doors.admit(&peer(7), (What::Agent, "Find")).unwrap())
            .collect();
        let refused = doors.admit(&peer(7), (What::Agent, "Find")).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(
            doors.admit(&peer(8), (What::Agent, "Find")).is_ok(),
            "another client is another client"
        );
        held.pop();
        assert!(doors.admit(&peer(7), (What::Agent, "Find")).is_ok());
    }
}
