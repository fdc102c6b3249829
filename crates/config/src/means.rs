//! The means of telling: the tables below `[notify]`, checked.

use std::ops::Range;
use std::path::PathBuf;

use lapin::uri::{AMQPScheme, AMQPUri};

use super::keys::Key;
use super::keys::notify::{amqp, exec, sink, smtp, webhook};
use super::section::{Section, Source, value};
use purge_base::secret;
use purge_notify::settings::{Amqp, Exec, Means, Smtp, Tls, Webhook};
use purge_notify::url::{Url, is_loopback};

/// A sink that answers later than this has not answered.
const TIMEOUT_MAX: u64 = 600;

/// A file that is there: what is missing now would only be found when the first notice is to go out.
fn file(s: &Section<'_, '_>, src: &mut Source<'_>, key: &'static Key) -> Option<PathBuf> {
    let (text, span) = s.string(src, key)?;
    let path = match secret::file_of(&text, &secret::credentials_dir()) {
        Ok(path) => path,
        Err((what, mend)) => {
            src.fault(&span, format!("{} {what}", key.name), mend);
            return None;
        }
    };
    if !path.is_file() && !secret::is_of_the_service_only(&path) {
        let what = format!("{} {} is no file", key.name, path.display());
        src.fault(&span, what, "write it, readable for root only");
    }
    Some(path)
}

/// A file with a secret, which is root's alone.
fn secret_file(s: &Section<'_, '_>, src: &mut Source<'_>, key: &'static Key) -> Option<PathBuf> {
    let span = s.span_of(key);
    let path = file(s, src, key)?;
    if let Some((what, cure)) = secret::exposed(&path) {
        src.fault(&span, format!("{} {what}", key.name), cure);
    }
    Some(path)
}

/// Certificates to trust, which only an encrypted connection asks for.
fn ca_file(s: &Section<'_, '_>, src: &mut Source<'_>, encrypted: bool, scheme: &str) -> Option<PathBuf> {
    if s.has(sink::CA_FILE) && !encrypted {
        let what = "ca_file has no meaning: the connection is not encrypted";
        src.fault(
            &s.span.clone(),
            what,
            format!("write a url that starts with {scheme}://, or leave ca_file out"),
        );
    }
    file(s, src, sink::CA_FILE)
}

fn timeout(s: &Section<'_, '_>, src: &mut Source<'_>) -> u64 {
    match s.duration(src, sink::TIMEOUT) {
        Some((n, span)) if n == 0 || n > TIMEOUT_MAX => {
            src.fault(&span, format!("timeout is {n} s"), "write 1s to 10m");
            TIMEOUT_MAX
        }
        found => value(found),
    }
}

pub(super) fn read_smtp(s: &Section<'_, '_>, src: &mut Source<'_>) -> Option<Means> {
    let host = s.needed(src, smtp::HOST);
    let from = needed_address(s, src, smtp::FROM);
    let to = needed_address(s, src, smtp::TO);
    let operator = address(s, src, smtp::OPERATOR);
    let choices = [
        ("starttls", Tls::Starttls),
        ("wrapped", Tls::Wrapped),
        ("opportunistic", Tls::Opportunistic),
        ("none", Tls::None),
    ];
    let tls = s.choice(src, smtp::TLS, &choices);
    let user = s.string(src, smtp::USER);
    let port = match value(s.count(src, smtp::PORT)).try_into() {
        Ok(port) if port > 0 => port,
        Ok(_) | Err(_) => {
            src.fault(&s.span_of(smtp::PORT), "port is out of range", "write 1 to 65535");
            0
        }
    };
    let ca = file(s, src, sink::CA_FILE);
    let password = secret_file(s, src, sink::PASSWORD_FILE);
    if user.is_some() != (password.is_some() || s.has(sink::PASSWORD_FILE)) {
        src.fault(
            &s.span.clone(),
            "user and password_file belong together",
            "give both, or none",
        );
    }
    if let (Some((_, span)), true) = (&user, matches!(tls, Some(Tls::None | Tls::Opportunistic))) {
        src.fault(
            span,
            "the password would go over the network unprotected",
            "write tls = \"starttls\" or \"wrapped\"",
        );
    }
    Some(Means::Smtp(Smtp {
        host: host?.0,
        port,
        from: from?,
        to: to?,
        operator,
        tls: tls?,
        ca,
        login: user.map(|(u, _)| u).zip(password),
    }))
}

fn needed_address(s: &Section<'_, '_>, src: &mut Source<'_>, key: &'static Key) -> Option<String> {
    s.need(src, key);
    address(s, src, key)
}

/// A mail address, with `{user}` where a name may stand.
fn address(s: &Section<'_, '_>, src: &mut Source<'_>, key: &'static Key) -> Option<String> {
    let (text, span) = s.string(src, key)?;
    let filled = text.replace("{user}", "someone");
    match filled.parse::<lettre::message::Mailbox>() {
        Ok(_) if key.name == smtp::TO.name || filled == text => Some(text),
        Ok(_) => {
            src.fault(
                &span,
                format!("{} cannot be {text:?}", key.name),
                "{user} stands in `to` only",
            );
            None
        }
        Err(e) => {
            let mend = format!("write such as {}", key.example);
            src.fault(&span, format!("{} {text:?} is no address: {e}", key.name), mend);
            None
        }
    }
}

pub(super) fn read_webhook(s: &Section<'_, '_>, src: &mut Source<'_>) -> Option<Means> {
    let url = s.needed(src, webhook::URL);
    let url = url.map(|(text, span)| (Url::new(text), span));
    let host = url
        .as_ref()
        .and_then(|(url, span)| webhook_host(src, url, span.clone()));
    let secret = secret_file(s, src, webhook::SECRET_FILE);
    let token_file = secret_file(s, src, webhook::TOKEN_FILE);
    let encrypted = url.as_ref().is_some_and(|(u, _)| u.is("https"));
    if s.has(webhook::TOKEN_FILE) && !encrypted && host.is_some_and(|host| !is_loopback(&host)) {
        let mend = "write a url that starts with https://";
        src.fault(
            &s.span_of(webhook::TOKEN_FILE),
            "the token would go over the network unprotected",
            mend,
        );
    }
    let ca = ca_file(s, src, encrypted, "https");
    let timeout = timeout(s, src);
    Some(Means::Webhook(Webhook {
        url: url?.0,
        secret_file: secret,
        token_file,
        ca,
        timeout,
    }))
}

/// The host of a webhook's address, if it is one that can be used.
fn webhook_host(src: &mut Source<'_>, url: &Url, span: Range<usize>) -> Option<String> {
    let parsed = url.reveal().parse::<hyper::Uri>().ok();
    let parsed = parsed.filter(|u| matches!(u.scheme_str(), Some("http" | "https")));
    let host = parsed.and_then(|u| Some(u.host()?.to_owned()));
    let host = host.filter(|h| !h.is_empty());
    if host.is_none() {
        let mend = "write such as \"https://example.org/hook\"";
        src.fault(&span, format!("url {url} is no http or https address"), mend);
    } else if url.login().is_some() {
        let mend = "leave them out, write the token into a file that is root's alone (chmod 600) and name that: token_file = \
                    \"/etc/purge-agent/hook.token\"";
        src.fault(&span, format!("url {url} has a user or a password in it"), mend);
    }
    host
}

pub(super) fn read_amqp(s: &Section<'_, '_>, src: &mut Source<'_>) -> Option<Means> {
    let url = s.needed(src, amqp::URL);
    let url = url.map(|(text, span)| (Url::new(text), span));
    if let Some((url, span)) = &url {
        check_broker(src, url, span, s.has(sink::PASSWORD_FILE));
    }
    let exchange = s.needed(src, amqp::EXCHANGE);
    if let Some((name, span)) = &exchange
        && (name.is_empty() || name.len() > 127)
    {
        src.fault(
            span,
            "exchange is no name",
            "write 1 to 127 characters, such as \"purge\"",
        );
    }
    let routing_key = s.string(src, amqp::ROUTING_KEY).map(|(key, _)| key);
    let password_file = secret_file(s, src, sink::PASSWORD_FILE);
    let ca = ca_file(s, src, url.as_ref().is_some_and(|(u, _)| u.is("amqps")), "amqps");
    Some(Means::Amqp(Amqp {
        url: url?.0,
        exchange: exchange?.0,
        routing_key,
        password_file,
        ca,
    }))
}

fn check_broker(src: &mut Source<'_>, url: &Url, span: &Range<usize>, has_file: bool) {
    match url.reveal().parse::<AMQPUri>() {
        Err(e) => {
            let mend =
                "write such as \"amqp://user@127.0.0.1:5672/%2f\" or \"amqps://user@broker.example.org/%2f\"";
            // Some of its errors repeat all of it.
            let why = e.replace(url.reveal(), &url.to_string());
            src.fault(span, format!("url is no AMQP address: {why}"), mend);
        }
        Ok(uri) => {
            let has_password = has_file || url.login().is_some_and(|(_, word)| word.is_some());
            if uri.scheme == AMQPScheme::AMQP && has_password && !is_loopback(&uri.authority.host) {
                src.fault(
                    span,
                    format!("url {url}: the password would go over the network unprotected"),
                    "write amqps://, or name a broker on this host (127.0.0.1)",
                );
            }
        }
    }
}

pub(super) fn read_exec(s: &Section<'_, '_>, src: &mut Source<'_>) -> Option<Means> {
    s.need(src, exec::COMMAND);
    let command = s.strings(src, exec::COMMAND);
    let timeout = timeout(s, src);
    let (words, span) = command?;
    let command: Vec<String> = words.into_iter().map(|(word, _)| word).collect();
    let program = command.first().map(PathBuf::from).unwrap_or_default();
    if !program.is_absolute() || !program.is_file() {
        let what = format!("command {:?} is no program", program.display());
        src.fault(&span, what, "write its absolute path; no shell reads it");
    }
    Some(Means::Exec(Exec { command, timeout }))
}
