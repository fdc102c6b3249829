//! A mail server: Python's aiosmtpd, which keeps every mail in a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tempfile::TempDir;

use super::{end, is_open, serve};
use crate::skip::Unmet;
use crate::wait::{SOON, until};
use crate::{files, sh};

const SCRIPT: &str = include_str!("mail.py");
/// Debian's packages are this one's.
const PYTHON: &str = "/usr/bin/python3";

/// A mail that was taken.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Whom the envelope names.
    pub to: String,
    /// As whom the sender logged in; empty: without a login.
    pub login: String,
    /// Whether it came encrypted.
    pub encrypted: bool,
    /// The subject.
    pub subject: String,
    /// The Message-ID.
    pub id: String,
    /// The text.
    pub text: String,
    /// What is attached, by name.
    pub attachments: Vec<(String, String)>,
}

/// The server and what it was given. The mails stay when the server goes.
#[derive(Debug)]
pub struct MailServer {
    port: u16,
    dir: TempDir,
    child: Option<Child>,
    protected: bool,
}

impl MailServer {
    /// A server on this port that is not running yet. A protected one takes mails only by STARTTLS and with a login.
    ///
    /// # Errors
    /// When aiosmtpd or openssl is not installed.
    ///
    /// # Panics
    /// When its certificate cannot be made.
    pub fn new(port: u16, protected: bool) -> Result<Self, Unmet> {
        let installed = sh(Command::new(PYTHON).args(["-c", "import aiosmtpd"]));
        installed.map_err(|e| Unmet(format!("needs python3-aiosmtpd: {e}")))?;
        let dir = files::temp_dir();
        fs::create_dir(dir.path().join("mails")).expect("a directory for mails");
        fs::write(dir.path().join("server.py"), SCRIPT).expect("the server's script");
        let server = Self {
            port,
            dir,
            child: None,
            protected,
        };
        if protected {
            sh(Command::new("openssl")
                .args([
                    "req",
                    "-x509",
                    "-newkey",
                    "rsa:2048",
                    "-nodes",
                    "-days",
                    "2",
                    "-subj",
                    "/CN=localhost",
                ])
                .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
                .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
                .arg(server.dir.path().join("key.pem"))
                .arg("-out")
                .arg(server.certificate()))
            .map_err(Unmet)?;
        }
        Ok(server)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its certificate.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// Listens.
    ///
    /// # Panics
    /// When it does not get there.
    pub fn start(&mut self) {
        let log = fs::File::create(self.dir.path().join("log")).expect("a log");
        let mut command = Command::new(PYTHON);
        command
            .arg(self.dir.path().join("server.py"))
            .arg(self.port.to_string())
            .arg(self.dir.path())
            .args(self.protected.then_some("protected"));
        self.child = Some(serve(&mut command, log));
        until("the mail server listens", SOON, || {
            is_open(self.port).then_some(())
        });
    }

    /// Goes away.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }

    /// The mails so far, in the order in which they came.
    ///
    /// # Panics
    /// When one cannot be read.
    pub fn mails(&self) -> Vec<Mail> {
        let dir = self.dir.path().join("mails");
        let mut all: Vec<PathBuf> = fs::read_dir(dir)
            .expect("the mails")
            .map(|e| e.expect("a mail").path())
            .filter(|p| p.extension().is_some_and(|x| x == "json"))
            .collect();
        all.sort();
        all.iter().map(|path| read(path)).collect()
    }
}

fn read(path: &Path) -> Mail {
    let text = fs::read_to_string(path).expect("a mail");
    let mail: serde_json::Value = serde_json::from_str(&text).expect("a mail as JSON");
    let part = |key: &str| crate::ctl::text(&mail, key).to_owned();
    let attachments = mail.get("attachments").and_then(|a| a.as_array());
    Mail {
        to: part("to"),
        login: part("login"),
        encrypted: mail.get("encrypted").is_some_and(|e| e == true),
        subject: part("subject"),
        id: part("id"),
        text: part("text"),
        attachments: attachments
            .into_iter()
            .flatten()
            .map(|a| {
                (
                    crate::ctl::text(a, "name").to_owned(),
                    crate::ctl::text(a, "text").to_owned(),
                )
            })
            .collect(),
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!("--- the mail server\n{log}\n---");
        }
    }
}
