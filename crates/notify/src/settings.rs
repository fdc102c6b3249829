//! Who gets notices of what happens on a volume, and by what means.

use std::fmt;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::url::Url;
use crate::event::Kind;
use purge_base::secret;

/// The `[notify]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// Where notices go; none: no notice is sent.
    pub sinks: Vec<Sink>,
    /// Owners hear of what will expire within this number of seconds.
    pub warn_before: u64,
    /// How an owner's address is found, besides the sink's pattern.
    pub addresses: Addresses,
    /// Where replaced templates lie.
    pub templates: Option<PathBuf>,
    /// At most this number of entries of a list comes with a notice; the others are counted.
    pub list_max: usize,
    /// A notice that the sink does not take is given up after this number of seconds.
    pub retry_for: u64,
    /// Nothing is sent: the notices can be looked at.
    pub dry_run: bool,
    /// The first notices to owners wait for this number of seconds, unless an operator releases them.
    pub hold_first: u64,
}

impl Default for Notify {
    fn default() -> Self {
        Self {
            sinks: Vec::new(),
            warn_before: 7 * 86_400,
            addresses: Addresses::default(),
            templates: None,
            list_max: 1000,
            retry_for: 7 * 86_400,
            dry_run: false,
            hold_first: 3600,
        }
    }
}

/// How an owner's address is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// A file of lines `user address`.
    pub map: Option<PathBuf>,
    /// An address in the user's gecos field counts.
    pub gecos: bool,
}

/// One means of telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sink {
    /// What commands and the outbox call it.
    pub name: String,
    /// What it is told of.
    pub events: Vec<Kind>,
    /// An owner gets at most one notice within this number of seconds; 0: each event is a notice of its own.
    pub digest: u64,
    /// Which means.
    pub means: Means,
}

/// Which means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Means {
    /// Mail.
    Smtp(Smtp),
    /// JSON by HTTP POST.
    Webhook(Webhook),
    /// JSON into an AMQP 0.9.1 exchange.
    Amqp(Amqp),
    /// JSON into a program's standard input.
    Exec(Exec),
}

/// How a connection to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// By STARTTLS, or no mail is sent.
    Starttls,
    /// From the first byte.
    Wrapped,
    /// By STARTTLS where the server offers it.
    Opportunistic,
    /// Not at all.
    None,
}

/// A mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smtp {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The sender.
    pub from: String,
    /// An owner's address: `{user}` is the user's name.
    pub to: String,
    /// The address of the person who keeps the storage.
    pub operator: Option<String>,
    /// How the connection is protected.
    pub tls: Tls,
    /// A certificate (PEM) to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// Logs in as this user, with the password in this file.
    pub login: Option<(String, PathBuf)>,
}

/// An HTTP endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where to.
    pub url: Url,
    /// The file with the token that goes with each request.
    pub token_file: Option<PathBuf>,
    /// The file with the key of the signature.
    pub secret_file: Option<PathBuf>,
    /// Certificates (PEM) to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// Seconds after which an answer is not waited for any more.
    pub timeout: u64,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amqp {
    /// Where it is, and with which user and virtual host.
    pub url: Url,
    /// Declared (durable, topic) unless it is there.
    pub exchange: String,
    /// Of every message; none: `KIND.VOLUME`.
    pub routing_key: Option<String>,
    /// The file with the password, where the URL has none.
    pub password_file: Option<PathBuf>,
    /// Certificates (PEM) to trust besides the system's.
    pub ca: Option<PathBuf>,
}

/// A program.
#[derive(Clone, PartialEq, Eq)]
pub struct Exec {
    /// The program, by its absolute path, and its arguments.
    pub command: Vec<String>,
    /// Seconds after which it is killed.
    pub timeout: u64,
}

/// Arguments may be secrets.
impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exec")
            .field("program", &self.command.first())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Means {
    /// What must not come back in an error: servers repeat what they were sent. Secrets are read from their files as they are now.
    pub fn secrets(&self) -> Vec<String> {
        let read = |file: &Option<PathBuf>| file.as_deref().and_then(secret::read);
        match self {
            Self::Smtp(c) => {
                let login = c.login.as_ref();
                let read = login.and_then(|(user, file)| Some((user, secret::read(file)?)));
                read.into_iter()
                    .flat_map(|(user, word)| {
                        // As AUTH PLAIN and AUTH LOGIN send it.
                        let plain = STANDARD.encode(format!("\0{user}\0{word}"));
                        [STANDARD.encode(&word), plain, word]
                    })
                    .collect()
            }
            Self::Webhook(c) => {
                let files = [read(&c.secret_file), read(&c.token_file)];
                files.into_iter().flatten().chain(c.url.secrets()).collect()
            }
            Self::Amqp(c) => {
                let uri = c.url.reveal().parse::<lapin::uri::AMQPUri>().ok();
                let decoded = uri.map(|u| u.authority.userinfo.password);
                let login = c.url.login();
                // What holds where nothing is said is no secret.
                let written = login.and_then(|(_, word)| Some([word?.to_owned(), decoded?]));
                let written = written.into_iter().flatten();
                written.chain(read(&c.password_file)).collect()
            }
            Self::Exec(_) => Vec::new(),
        }
    }
}
