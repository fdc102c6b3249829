//! An HTTP endpoint that keeps what it is given.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a client posted.
#[derive(Debug, Clone)]
pub struct Posted {
    /// What it was answered.
    pub status: u16,
    /// When the answer was given.
    pub at: Instant,
    /// Names in small letters.
    pub headers: BTreeMap<String, String>,
    /// As it came.
    pub body: String,
}

impl Posted {
    /// The body.
    ///
    /// # Panics
    /// When it is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// The endpoint. It stops listening when it is dropped.
#[derive(Debug)]
pub struct Hook {
    port: u16,
    posted: Arc<Mutex<Vec<Posted>>>,
    answer: Arc<AtomicU16>,
    thinks: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hook {
    /// Listens on this port, and answers 200.
    ///
    /// # Panics
    /// When the port is taken.
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the endpoint's port is free");
        let mut hook = Self {
            port,
            posted: Arc::default(),
            answer: Arc::new(AtomicU16::new(200)),
            thinks: Arc::default(),
            stop: Arc::default(),
            thread: None,
        };
        let (posted, answer, thinks, stop) = (
            Arc::clone(&hook.posted),
            Arc::clone(&hook.answer),
            Arc::clone(&hook.thinks),
            Arc::clone(&hook.stop),
        );
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (status, thinks) = (answer.load(SeqCst), thinks.load(SeqCst));
                take(stream, status, Duration::from_micros(thinks), &posted);
            }
        });
        hook.thread = Some(thread);
        hook
    }

    /// What it answers from now on.
    pub fn answer(&self, status: u16) {
        self.answer.store(status, SeqCst);
    }

    /// How long it thinks before it answers.
    pub fn think(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.thinks.store(micros, SeqCst);
    }

    /// All that came.
    ///
    /// # Panics
    /// When a thread of it has panicked.
    pub fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap().clone()
    }

    /// All that it has taken.
    pub fn taken(&self) -> Vec<Posted> {
        let all = self.posted();
        all.into_iter().filter(|p| p.status < 300).collect()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether the client has closed its end: then nothing is taken from it.
fn has_disconnected(stream: &TcpStream) -> bool {
    let _ = stream.set_nonblocking(true);
    let peeked = stream.peek(&mut [0]);
    let _ = stream.set_nonblocking(false);
    match peeked {
        Ok(n) => n == 0,
        Err(e) => e.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// Reads what a client posts, and keeps it if the answer goes out.
fn take(stream: TcpStream, status: u16, thinks: Duration, posted: &Mutex<Vec<Posted>>) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    if !line.starts_with("POST ") {
        return None;
    }
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    std::thread::sleep(thinks);
    if has_disconnected(reader.get_ref()) {
        return None;
    }
    let body = String::from_utf8(body).ok()?;
    // Before the client reads the answer, the post is in the list.
    let mut all = posted.lock().ok()?;
    let words = format!("HTTP/1.1 {status} Said\r\ncontent-length: 3\r\nconnection: close\r\n\r\nso\n");
    reader.get_mut().write_all(words.as_bytes()).ok()?;
    all.push(Posted {
        status,
        at: Instant::now(),
        headers,
        body,
    });
    Some(())
}
