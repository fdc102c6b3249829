//! Mail: to an owner at their own address, to the operator at theirs. The server has taken it when it answers the message with 250.
//!
//! The Message-ID is made from the notice's name, so that a mail that had to be sent twice can be told from two.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::message::{Attachment, Mailbox, Message, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{self};
use rustls::ClientConfig;

use purge_proto::shown::Shown;

use super::super::address;
use super::super::event::Entry;
use super::bounded::{self, Bounded, Form, Transport};
use super::starttls::{self, Answer};
use super::{Letter, Receipt, SendError, secret, tls};
use crate::settings::{Addresses, Smtp, Tls};

/// A server that answers later than this is taken for dead. RFC 5321 allows minutes for the end of a message.
const ANSWERS_WITHIN: Duration = Duration::from_secs(300);
/// And this long for a connection and its greetings.
const CONNECTS_WITHIN: Duration = Duration::from_secs(30);
/// RFC 5321 allows 512 bytes for a line of an answer; some servers say more.
const LINE_BYTES_MAX: usize = 4096;
/// All the answers of a server in one connection: a mail with its greetings and login needs some 2 kB.
const ANSWERS_BYTES_MAX: usize = 64 << 10;
/// The mail library waits for a greeting. The server's own was read before the connection was encrypted.
const GREETING: &[u8] = b"220 the greeting was read\r\n";
/// What cannot be delivered to this address, now or later: no such mailbox, not local, not allowed, no such user.
const NEVER: [u16; 5] = [501, 550, 551, 553, 554];

/// A mail server.
#[derive(Debug)]
pub struct Mailer {
    config: Smtp,
    addresses: Addresses,
}

impl Mailer {
    pub fn new(config: Smtp, addresses: Addresses) -> Self {
        Self { config, addresses }
    }

    pub async fn send(&self, letter: &Letter, receipt: &Receipt) -> Result<(), SendError> {
        let to = self.recipient(letter)?;
        let message = compose(letter, &self.config.from, &to)?;
        let connected = tokio::time::timeout(CONNECTS_WITHIN, self.connect(letter)).await;
        let server = format!("{}:{}", self.config.host, self.config.port);
        let mut connection = connected.map_err(|_| {
            SendError::Down(format!(
                "{server} did not answer within {} s",
                CONNECTS_WITHIN.as_secs()
            ))
        })??;
        let text = message.formatted();
        let sending = connection.send(message.envelope(), &text);
        let done = match tokio::time::timeout(ANSWERS_WITHIN, sending).await {
            Ok(answer) => answer
                .map(|_| receipt.taken())
                .map_err(|e| refused(&server, &to, &e)),
            Err(_) => Err(SendError::Down(format!("{server} did not take the mail in time"))),
        };
        // It is taken, or not: no task waits for the farewell.
        tokio::spawn(async move {
            let _ = tokio::time::timeout(CONNECTS_WITHIN, connection.abort()).await;
        });
        done
    }

    fn recipient(&self, letter: &Letter) -> Result<String, SendError> {
        let c = &self.config;
        let found = match (letter.owner(), &c.operator) {
            (Some(user), _) => address::of(user, &self.addresses, &c.to),
            (None, Some(operator)) => Ok(operator.clone()),
            (None, None) => address::of("root", &self.addresses, &c.to),
        };
        found.map_err(SendError::Down)
    }

    async fn connect(&self, letter: &Letter) -> Result<AsyncSmtpConnection, SendError> {
        let c = &self.config;
        let server = format!("{}:{}", c.host, c.port);
        let down = |e: smtp::Error| SendError::Down(format!("{server}: {}", in_full(&e)));
        let hello = ClientId::Domain(letter.host.clone());
        let stream = self.stream(&hello).await?;
        let connecting = AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello);
        let mut connection = connecting.await.map_err(down)?;
        if let Some((user, file)) = &c.login {
            let credentials = Credentials::new(user.clone(), secret(file)?);
            connection
                .auth(DEFAULT_MECHANISMS, &credentials)
                .await
                .map_err(|e| {
                    SendError::Down(format!("{server} refuses the login of {user}: {}", in_full(&e)))
                })?;
        }
        Ok(connection)
    }

    /// A connection protected as the configuration asks.
    async fn stream(&self, hello: &ClientId) -> Result<Bounded, SendError> {
        let c = &self.config;
        let server = format!("{}:{}", c.host, c.port);
        let down = |e: io::Error| SendError::Down(tls::with_cure(format!("{server}: {e}")));
        let (tcp, peer) = bounded::connect(&c.host, c.port).await.map_err(down)?;
        let plain = talk(Box::new(tcp), peer);
        let encrypt = async |below| {
            let encrypted = tls::encrypt(below, &c.host, self.trust()?).await.map_err(down)?;
            Ok(talk(Box::new(encrypted), peer))
        };
        match c.tls {
            Tls::None => Ok(plain),
            Tls::Wrapped => encrypt(plain.into_below()).await,
            Tls::Starttls | Tls::Opportunistic => match starttls::ask(plain, hello).await.map_err(down)? {
                Answer::Ready(below) => Ok(encrypt(below).await?.after(GREETING)),
                Answer::NotOffered(plain) if c.tls == Tls::Opportunistic => Ok(plain.after(GREETING)),
                Answer::NotOffered(_) => Err(SendError::Down(format!(
                    "{server} offers no STARTTLS, and tls = \"starttls\" asks for it"
                ))),
            },
        }
    }

    fn trust(&self) -> Result<ClientConfig, SendError> {
        match self.config.tls {
            Tls::Opportunistic => tls::trusting_any(),
            _ => tls::client(self.config.ca.as_deref()),
        }
    }
}

fn talk(below: Box<dyn Transport>, peer: SocketAddr) -> Bounded {
    Bounded::new(below, peer, Form::lines(LINE_BYTES_MAX), ANSWERS_BYTES_MAX)
}

impl AsyncTokioStream for Bounded {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer())
    }
}

/// Whether it is worth trying again.
fn refused(server: &str, to: &str, error: &smtp::Error) -> SendError {
    let words = format!("{server}, to {to}: {}", in_full(error));
    match error.status().map(u16::from) {
        Some(code) if NEVER.contains(&code) => SendError::Never(words),
        Some(_) => SendError::Refused(words),
        None => SendError::Down(words),
    }
}

fn compose(letter: &Letter, from: &str, to: &str) -> Result<Message, SendError> {
    let never = |what: &str, e: &dyn std::fmt::Display| SendError::Never(format!("{what}: {e}"));
    let from: Mailbox = from.parse().map_err(|e| never("from", &e))?;
    let to: Mailbox = to.parse().map_err(|e| never(&format!("address {to:?}"), &e))?;
    let id = format!("<{}@{}>", letter.notice.notice_id, from.email.domain());
    let builder = Message::builder()
        .from(from)
        .to(to)
        .subject(&letter.words.subject)
        .message_id(Some(id))
        // RFC 3834: no holiday notice answers this.
        .raw_header(header("Auto-Submitted", "auto-generated"))
        .raw_header(header("X-Purge-Notice", &letter.notice.notice_id))
        .raw_header(header("X-Purge-Event", letter.kind()))
        .date_now();
    let text = SinglePart::builder()
        .header(ContentType::TEXT_PLAIN)
        .body(letter.words.body.clone());
    let list = list_of(letter);
    let built = match list.is_empty() {
        true => builder.singlepart(text),
        false => {
            let list = Attachment::new("files.txt".into()).body(list, ContentType::TEXT_PLAIN);
            builder.multipart(MultiPart::mixed().singlepart(text).singlepart(list))
        }
    };
    built.map_err(|e| never("the mail cannot be composed", &e))
}

fn header(name: &'static str, value: &str) -> lettre::message::header::HeaderValue {
    use lettre::message::header::{HeaderName, HeaderValue};
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

/// The lists of all events as text: when, how large, which.
fn list_of(letter: &Letter) -> String {
    let mut text = String::new();
    for (event, entries) in letter.notice.events.iter().zip(&letter.lists) {
        if entries.is_empty() {
            continue;
        }
        let total = event.list.as_ref().map_or(0, |l| l.total);
        let shown = entries.len();
        let _ = writeln!(
            text,
            "# {} on {}: {shown} of {total}; {}bytes, path",
            event.what.kind().as_str(),
            event.volume,
            if entries.iter().any(|e| e.expires_at.is_some()) {
                "expiry, "
            } else {
                ""
            }
        );
        for entry in entries {
            if let Some(at) = &entry.expires_at {
                let _ = write!(text, "{at}  ");
            }
            let _ = writeln!(text, "{:>15}  {}", entry.bytes, path_of(entry));
        }
    }
    text
}

/// On one line, from its bytes where it is no UTF-8.
fn path_of(entry: &Entry) -> String {
    let raw = entry.raw_path();
    let path = Shown::name(&raw).into_string();
    match entry.hidden {
        true => format!("{path} (the rest is in a directory that you cannot enter)"),
        false => path,
    }
}

/// An error and what is behind it.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        let more = e.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        source = e.source();
    }
    words
}
