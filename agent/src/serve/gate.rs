//! Stands before the service: looks who calls, whether they may, and how many of their calls are open already.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::{Request, Status};

use super::roles::{self, Peer, Scope};
use super::tally::{Counted, Tally};
use crate::config::Access;
use crate::host::User;
use crate::model::Seconds;

/// Calls that one client may have open at a time, over all of its connections. Those of root are as many as its scripts need.
const OPEN_CALLS_MAX: usize = 32;
const OPEN_CALLS_OF_ROOT_MAX: usize = 256;
/// What stands for "no deadline" where a client gives one that lies further ahead (`grpc-timeout` has up to eight digits of hours).
const DEADLINE_MAX: Duration = Duration::from_secs(365 * 86_400);

/// What decides at the door. Shared by all connections.
#[derive(Debug, Default)]
pub struct Doors {
    access: RwLock<Access>,
    open: Tally,
}

/// Who calls, for the call itself.
#[derive(Debug, Clone)]
pub struct Caller {
    /// As it stands in records.
    pub name: String,
    /// The local user; none: a certificate.
    pub uid: Option<u32>,
    /// How much they see.
    pub scope: Scope,
    /// When they stop waiting for the answer.
    pub deadline: Option<Instant>,
    /// A plan of theirs has at most so many candidates.
    pub candidates_max: u64,
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
        self.only().map(|uid| User { uid, name })
    }

    /// The user that all of this is for; none: everybody.
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
            open: Tally::default(),
        }
    }

    /// Another configuration, from the next call on, also of clients that are connected already.
    pub fn replace(&self, access: Access) {
        *self.access.write() = access;
    }

    fn admit(&self, peer: &Peer, call: &str) -> Result<(Caller, Counted), Status> {
        peer.still_stands(Seconds::wall().unix())
            .map_err(Status::unauthenticated)?;
        let access = self.access.read();
        let caller = Caller {
            name: peer.name(),
            uid: match peer {
                Peer::Local { uid, .. } => Some(*uid),
                _ => None,
            },
            scope: roles::permit(peer, &access, call).map_err(Status::permission_denied)?,
            deadline: None,
            candidates_max: match (peer, access.max_plan_files) {
                (Peer::Local { uid: 0, .. }, _) | (_, 0) => u64::MAX,
                (_, max) => max,
            },
        };
        let max = match peer {
            Peer::Local { uid: 0, .. } => OPEN_CALLS_OF_ROOT_MAX,
            _ => OPEN_CALLS_MAX,
        };
        let open = self.open.count(&caller.name, max).ok_or_else(|| {
            let who = &caller.name;
            Status::resource_exhausted(format!(
                "{who} has {max} calls open already; let some of them end first"
            ))
        })?;
        Ok((caller, open))
    }
}

/// A service behind the gate.
#[derive(Debug, Clone)]
pub struct Gate<S> {
    inner: S,
    doors: Arc<Doors>,
}

impl<S> Gate<S> {
    /// Puts the gate before a service.
    pub fn before(inner: S, doors: Arc<Doors>) -> Self {
        Self { inner, doors }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().unwrap_or(&Peer::Unknown);
        let call = request.uri().path().rsplit('/').next().unwrap_or_default();
        let (mut caller, open) = match self.doors.admit(peer, call) {
            Ok(admitted) => admitted,
            Err(status) => {
                tracing::debug!(peer = %peer.name(), call, why = status.message(), "a call was refused");
                return Box::pin(async move { Ok(status.into_http()) });
            }
        };
        let timeout = request.headers().get("grpc-timeout");
        caller.deadline = timeout
            .and_then(|t| t.to_str().ok())
            .and_then(parse_timeout)
            .and_then(|t| Instant::now().checked_add(t));
        request.extensions_mut().insert(caller);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // The call is open as long as its answer is being read.
            Ok(answer.map(|body| Body::new(CountedBody { body, _open: open })))
        })
    }
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

/// An answer's body that counts as an open call.
struct CountedBody {
    body: Body,
    _open: Counted,
}

impl HttpBody for CountedBody {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    #[allow(clippy::type_complexity, reason = "the trait's own")]
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
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
    fn a_client_has_only_so_many_calls_open_and_gets_them_back() {
        let doors = Doors::new(Access {
            own: true,
            ..Access::default()
        });
        let peer = |uid| Peer::Local { uid, gids: vec![] };
        let mut held: Vec<_> = (0..OPEN_CALLS_MAX)
            .map(|_| doors.admit(&peer(7), "Find").unwrap())
            .collect();
        let refused = doors.admit(&peer(7), "Find").unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(
            doors.admit(&peer(8), "Find").is_ok(),
            "another client is another client"
        );
        held.pop();
        assert!(doors.admit(&peer(7), "Find").is_ok());
    }
}
