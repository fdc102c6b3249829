//! Mail servers, brokers and HTTP endpoints that mean ill, on the loopback: what they send takes neither memory nor stack, and is not believed.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use super::{Letter, SendError, Teller};
use crate::event::{Audience, Event, What};
use crate::notice::{Fate, Notice};
use crate::receipts::Receipt;
use crate::settings::{Amqp, Means, Notify, Sink, Smtp, Tls, Webhook};
use crate::text::Words;
use crate::url::Url;

/// What lies in the buffers of sockets is far less than this; a client that has read so much keeps all it gets.
const TOO_MUCH: usize = 32 << 20;
/// A server waits no longer for a client.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on the loopback that serves one client; what it says in the end.
fn server<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (u16, mpsc::Receiver<T>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (end, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let _ = end.send(serve(stream));
    });
    (port, ended)
}

/// Sends this over and over until the client closes the connection, or has read too much; the bytes.
fn pour(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    let mut poured = 0;
    while poured < TOO_MUCH && stream.write_all(bytes).is_ok() {
        poured += bytes.len();
    }
    poured
}

fn notice() -> Notice {
    Notice {
        notice_id: "n1".into(),
        sink: "s".into(),
        fate: Fate::Waiting,
        to: Audience::Operator,
        created_at: 1,
        due_at: 1,
        closed_at: 1,
        ended_at: 0,
        attempts: 0,
        error: String::new(),
        events: vec![Event {
            event_id: "test/1".into(),
            at: "2026-01-01T00:00:00Z".into(),
            volume: "v".into(),
            path: String::new(),
            to: Audience::Operator,
            what: What::Test { sink: "s".into() },
            list: None,
        }],
    }
}

/// Sends one notice, and lets the connection end before the runtime does.
fn send(means: Means, until: impl FnOnce()) -> Result<(), SendError> {
    let words = Words {
        subject: "a test".into(),
        body: "a test".into(),
    };
    let letter = Letter {
        notice: notice(),
        lists: vec![Vec::new()],
        words,
        host: "host.example".into(),
    };
    let sink = Sink {
        name: "s".into(),
        events: Vec::new(),
        digest: 0,
        means,
    };
    let mut teller = Teller::new(&sink, &Notify::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let sent = runtime.block_on(teller.send(&letter, &Receipt::nowhere("n1")));
    until();
    runtime.shutdown_background();
    sent
}

fn mail(port: u16, tls: Tls) -> Means {
    Means::Smtp(Smtp {
        host: "127.0.0.1".into(),
        port,
        from: "purge@host.example".into(),
        to: "{user}@example.org".into(),
        operator: Some("storage@example.org".into()),
        tls,
        ca: None,
        login: None,
    })
}

fn broker(port: u16) -> Means {
    Means::Amqp(Amqp {
        url: Url::new(format!("amqp://purge:secret@127.0.0.1:{port}/%2f")),
        exchange: "purge".into(),
        routing_key: None,
        password_file: None,
        ca: None,
    })
}

/// Reads up to the end of a line, or what comes up to the end of the connection.
fn line(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(b"\n") && stream.read_exact(&mut byte).is_ok() {
        said.push(byte[0]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// Reads a whole mail. Whether it is taken is not said.
fn smtp_until_data(stream: &mut TcpStream) {
    stream.write_all(b"220 here\r\n").unwrap();
    loop {
        let said = line(stream);
        let answer: &[u8] = match said.get(..4).unwrap_or(&said) {
            "DATA" => b"354 go on\r\n",
            ".\r\n" | "" => return,
            "EHLO" | "MAIL" | "RCPT" => b"250 well\r\n",
            _ => continue,
        };
        stream.write_all(answer).unwrap();
    }
}

#[test]
fn a_mail_server_that_never_ends_a_line_or_an_answer_takes_no_memory() {
    let endless: [&[u8]; 2] = [&[b'2'; 1 << 16], &b"220-more\r\n".repeat(1 << 10)];
    for tls in [Tls::None, Tls::Starttls] {
        for bytes in endless {
            let bytes = bytes.to_vec();
            let (port, poured) = server(move |mut stream| pour(&mut stream, &bytes));
            let failed = send(mail(port, tls), || ()).unwrap_err();
            let poured = poured.recv_timeout(PATIENCE).unwrap();
            assert!(poured < TOO_MUCH, "{tls:?}: {poured} bytes were read: {failed}");
            assert!(matches!(failed, SendError::Down(_)), "{failed:?}");
        }
    }
    // Also at the end, where the server may take minutes.
    let (port, poured) = server(|mut stream| {
        smtp_until_data(&mut stream);
        pour(&mut stream, &[b'2'; 1 << 16])
    });
    let failed = send(mail(port, Tls::None), || ()).unwrap_err();
    let poured = poured.recv_timeout(PATIENCE).unwrap();
    assert!(poured < TOO_MUCH, "{poured} bytes were read: {failed}");
}

#[test]
fn answers_that_were_said_before_tls_begins_are_not_believed() {
    let injected = b"220 go\r\n250-h\r\n250 SIZE\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n";
    let behind_ehlo = b"250-h\r\n250 STARTTLS\r\n220 go\r\n";
    for (to_ehlo, to_starttls) in [
        (&b"250-h\r\n250 STARTTLS\r\n"[..], &injected[..]),
        (behind_ehlo, b""),
    ] {
        for tls in [Tls::Starttls, Tls::Opportunistic] {
            let (port, begun) = server(move |mut stream| {
                stream.write_all(b"220 here\r\n").unwrap();
                assert!(line(&mut stream).starts_with("EHLO"));
                stream.write_all(to_ehlo).unwrap();
                let _ = line(&mut stream);
                let _ = stream.write_all(to_starttls);
                // The first record of TLS begins with this byte.
                let mut rest = [0];
                stream.read(&mut rest).is_ok_and(|n| n == 1 && rest == [0x16])
            });
            let failed = send(mail(port, tls), || ()).unwrap_err();
            assert!(
                failed.to_string().contains("before the connection was encrypted"),
                "{failed}"
            );
            assert!(!begun.recv_timeout(PATIENCE).unwrap(), "TLS was begun");
        }
    }
}

#[test]
fn an_http_endpoint_that_answers_without_end_takes_no_memory() {
    let endless = [
        ("", &b"H"[..]),
        ("HTTP/1.1 200 OK\r\n", b"Name: of a header\r\n"),
        ("HTTP/1.1 500 Broken\r\n\r\n", b"body"),
        ("HTTP/1.1 200 OK\r\n\r\n", b"body"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"ffffffff;extension",
        ),
    ];
    for (begin, bytes) in endless {
        let (port, poured) = server(move |mut stream| {
            let _ = line(&mut stream);
            stream.write_all(begin.as_bytes()).unwrap();
            pour(&mut stream, &bytes.repeat(1 << 14))
        });
        let means = Means::Webhook(Webhook {
            url: Url::new(format!("http://127.0.0.1:{port}/")),
            token_file: None,
            secret_file: None,
            ca: None,
            timeout: 10,
        });
        let mut all = usize::MAX;
        let sent = send(means, || {
            all = poured.recv_timeout(PATIENCE).unwrap_or(usize::MAX)
        });
        assert!(all < TOO_MUCH, "{begin:?}: {all} bytes were read: {sent:?}");
        assert_eq!(
            sent.is_ok(),
            begin.contains("200 OK\r\n\r\n") || begin.contains("chunked"),
            "{begin:?}"
        );
    }
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind][..], &channel.to_be_bytes(), &size, payload, b"\xce"].concat()
}

fn method(channel: u16, class: u16, number: u16, arguments: &[u8]) -> Vec<u8> {
    let head = [class.to_be_bytes(), number.to_be_bytes()].concat();
    frame(1, channel, &[&head, arguments].concat())
}

fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}

/// The next frame: its channel, and class and number of the method it holds.
fn next(stream: &mut TcpStream) -> Option<(u16, (u16, u16))> {
    let mut head = [0; 7];
    stream.read_exact(&mut head).ok()?;
    let size = u32::from_be_bytes(*head[3..].first_chunk().unwrap());
    let mut payload = vec![0; usize::try_from(size).unwrap() + 1];
    stream.read_exact(&mut payload).ok()?;
    let of = |at: usize| payload[at..].first_chunk().map_or(0, |b| u16::from_be_bytes(*b));
    let is_method = head[0] == 1;
    let names = if is_method { (of(0), of(2)) } else { (0, 0) };
    Some((u16::from_be_bytes([head[1], head[2]]), names))
}

/// The greeting of a broker, with these properties of its own.
fn start(properties: &[u8]) -> Vec<u8> {
    let arguments = [b"\0\x09", &long(properties)[..], &long(b"PLAIN"), &long(b"en_US")].concat();
    method(0, 10, 10, &arguments)
}

/// Behaves like a broker until a notice is published; its channel.
fn broker_until_published(stream: &mut TcpStream) -> Option<u16> {
    stream.read_exact(&mut [0; 8]).ok()?;
    stream.write_all(&start(b"")).ok()?;
    loop {
        let (channel, asked) = next(stream)?;
        let answer = match asked {
            (10, 11) => method(0, 10, 30, &[7, 255, 0, 2, 0, 0, 0, 0]),
            (10, 40) => method(0, 10, 41, b"\0"),
            (20, 10) => method(channel, 20, 11, &long(b"")),
            (40, 10) => method(channel, 40, 11, b""),
            (85, 10) => method(channel, 85, 11, b""),
            (60, 40) => return Some(channel),
            _ => continue,
        };
        stream.write_all(&answer).ok()?;
    }
}

fn acknowledged(channel: u16) -> Vec<u8> {
    method(channel, 60, 80, &[0, 0, 0, 0, 0, 0, 0, 1, 0])
}

/// A message of 60 kB that comes back; one that says it is endless never ends.
fn returned(channel: u16, is_endless: bool) -> Vec<u8> {
    let body = vec![b'y'; 60_000];
    let size = if is_endless { 1 << 40 } else { body.len() as u64 };
    let head = [&[0, 60, 0, 0][..], &size.to_be_bytes(), &[0, 0]].concat();
    [
        method(channel, 60, 50, b"\x01\x38\x01x\x01e\x01k"),
        frame(2, channel, &head),
        frame(3, channel, &body),
    ]
    .concat()
}

#[test]
fn a_broker_that_gives_back_messages_without_end_takes_no_memory() {
    for is_endless in [false, true] {
        let (port, poured) = server(move |mut stream| {
            let channel = broker_until_published(&mut stream).unwrap();
            let mut poured = 0;
            let first = returned(channel, is_endless);
            poured += first.len();
            stream.write_all(&first).unwrap();
            let more = match is_endless {
                true => frame(3, channel, &[b'y'; 60_000]),
                false => first,
            };
            poured + pour(&mut stream, &more)
        });
        let failed = send(broker(port), || ()).unwrap_err();
        let poured = poured.recv_timeout(PATIENCE).unwrap();
        assert!(poured < TOO_MUCH, "{poured} bytes were read: {failed}");
    }
}

#[test]
fn a_broker_has_no_connection_to_fill_once_it_has_taken_the_notice() {
    let (port, poured) = server(|mut stream| {
        let channel = broker_until_published(&mut stream).unwrap();
        stream.write_all(&acknowledged(channel)).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        pour(&mut stream, &returned(channel, false))
    });
    let mut all = usize::MAX;
    send(broker(port), || {
        all = poured.recv_timeout(PATIENCE).unwrap_or(usize::MAX)
    })
    .unwrap();
    assert!(all < TOO_MUCH, "{all} bytes were read");
}

#[test]
fn the_connection_is_closed_as_amqp_has_it_once_the_notice_is_taken() {
    let (port, ended) = server(|mut stream| {
        let channel = broker_until_published(&mut stream).unwrap();
        stream.write_all(&acknowledged(channel)).unwrap();
        std::iter::from_fn(|| next(&mut stream)).any(|(_, asked)| asked == (10, 50))
    });
    let mut farewell = None;
    send(broker(port), || farewell = ended.recv_timeout(PATIENCE).ok()).unwrap();
    assert_eq!(farewell, Some(true), "the agent did not close the connection");
}

#[test]
fn tables_in_tables_do_not_take_the_stack() {
    // The first stays within the bound and is read; the second does not.
    for (levels, is_read) in [(60, true), (24_000, false)] {
        let tables = (0..levels).fold(Vec::new(), |inner, _| [b"A", &long(&inner)[..]].concat());
        let properties = [b"\x01k", &tables[..]].concat();
        let (port, answered) = server(move |mut stream| {
            stream.read_exact(&mut [0; 8]).unwrap();
            let _ = stream.write_all(&start(&properties));
            next(&mut stream).is_some()
        });
        let failed = send(broker(port), || ()).unwrap_err();
        assert!(matches!(failed, SendError::Down(_)), "{failed:?}");
        assert_eq!(
            answered.recv_timeout(PATIENCE).unwrap(),
            is_read,
            "{levels} levels"
        );
    }
}
