//! The first words with a mail server, up to the beginning of TLS (RFC 3207). What lies behind the answer to STARTTLS was sent in clear, by
//! the server or by another on the way, and would be taken for the server's own words under TLS: with such bytes no TLS begins.

use std::io;

use lettre::transport::smtp::extension::ClientId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bounded::{Bounded, Transport};
use super::frames::refused;

/// So much is read at once.
const READ_BYTES: usize = 1024;

/// What the server answers.
pub enum Answer {
    /// It waits for TLS on this.
    Ready(Box<dyn Transport>),
    /// It offers none. It has greeted, and waits for a command.
    NotOffered(Bounded),
}

/// Reads the greeting, and asks for TLS if the server offers it.
///
/// # Errors
/// When the server does not answer as RFC 5321 has it, or says more than it was asked for.
pub async fn ask(mut server: Bounded, hello: &ClientId) -> io::Result<Answer> {
    let _ = expect(&mut server, "the greeting", "220").await?;
    server.write_all(format!("EHLO {hello}\r\n").as_bytes()).await?;
    let extensions = expect(&mut server, "EHLO", "250").await?;
    if !offers_starttls(&extensions) {
        return Ok(Answer::NotOffered(server));
    }
    server.write_all(b"STARTTLS\r\n").await?;
    let _ = expect(&mut server, "STARTTLS", "220").await?;
    Ok(Answer::Ready(server.into_below()))
}

/// One whole answer with this code, and nothing behind it.
async fn expect(server: &mut Bounded, to: &str, code: &str) -> io::Result<String> {
    let mut said = Vec::new();
    let end = loop {
        let mut some = [0; READ_BYTES];
        let n = server.read(&mut some).await?;
        if n == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the server closed the connection instead of an answer ({to})"),
            ));
        }
        said.extend_from_slice(some.get(..n).unwrap_or_default());
        if let Some(end) = end_of_answer(&said) {
            break end;
        }
    };
    if end < said.len() {
        return Err(refused(format!(
            "the server said more than its answer ({to}) before the connection was encrypted: another may have put it there"
        )));
    }
    let answer = String::from_utf8_lossy(&said).into_owned();
    match answer.starts_with(code) {
        true => Ok(answer),
        false => Err(refused(format!(
            "the server answered ({to}): {}",
            answer.trim_end()
        ))),
    }
}

/// Where the first answer ends, if it has come whole: `250-` goes on, `250 ` is the last line.
fn end_of_answer(said: &[u8]) -> Option<usize> {
    let mut end = 0usize;
    for line in said.split_inclusive(|b| *b == b'\n') {
        end = end.saturating_add(line.len());
        if !line.ends_with(b"\n") {
            return None;
        }
        if line.get(3) != Some(&b'-') {
            return Some(end);
        }
    }
    None
}

/// Whether an answer to EHLO names it.
fn offers_starttls(answer: &str) -> bool {
    let words = answer.lines().skip(1).filter_map(|line| line.get(4..));
    words
        .into_iter()
        .any(|w| w.trim().eq_ignore_ascii_case("STARTTLS"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_its_last_line() {
        assert_eq!(end_of_answer(b"250-a\r\n250-b\r\n"), None);
        assert_eq!(end_of_answer(b"250-a\r\n250 b\r"), None);
        assert_eq!(end_of_answer(b"250-a\r\n250 b\r\n220 c\r\n"), Some(14));
        assert_eq!(end_of_answer(b"\n"), Some(1));
        assert_eq!(end_of_answer(b""), None);
    }

    #[test]
    fn starttls_is_offered_by_a_line_of_its_own() {
        assert!(offers_starttls("250-host\r\n250-SIZE 1\r\n250 starttls\r\n"));
        assert!(!offers_starttls("250-STARTTLS\r\n250-XSTARTTLS\r\n250 SIZE\r\n"));
    }
}
