//! The means of telling: the tables below `[notify]`, checked.

use std::ops::Range;
use std::path::PathBuf;

use lapin::uri::{AMQPScheme, AMQPUri};

use super::section::{Section, Source};
use purge_base::secret;
use purge_notify::settings::{Amqp, Exec, Means, Smtp, Tls, Webhook};
use purge_notify::url::{Url, is_loopback};

const DEFAULT_TIMEOUT: u64 = 30;
/// Whoever answers later than this answers nobody.
const TIMEOUT_MAX: u64 = 600;

/// A file that is there: what is missing now would only be found when the first notice is to go out.
fn file(s: &mut Section<'_, '_>, src: &mut Source<'_>, key: &'static str) -> Option<PathBuf> {
    let (text, span) = s.string(src, key)?;
    let path = match secret::file_of(&text, &secret::credentials_dir()) {
        Ok(path) => path,
        Err((what, mend)) => {
            src.fault(&span, format!("{key} {what}"), mend);
            return None;
        }
    };
    if !path.is_file() && !secret::is_of_the_service_only(&path) {
        let what = format!("{key} {} is no file", path.display());
        src.fault(&span, what, "write it, readable for root only");
    }
    Some(path)
}

/// A file with a secret, which is root's alone.
fn secret_file(s: &mut Section<'_, '_>, src: &mut Source<'_>, key: &'static str) -> Option<PathBuf> {
    let span = s.span_of(key);
    let path = file(s, src, key)?;
    if let Some((what, cure)) = secret::exposed(&path) {
        src.fault(&span, format!("{key} {what}"), cure);
    }
    Some(path)
}

/// Certificates to trust, which only an encrypted connection asks for.
fn ca_file(s: &mut Section<'_, '_>, src: &mut Source<'_>, encrypted: bool, scheme: &str) -> Option<PathBuf> {
    if s.has("ca_file") && !encrypted {
        let what = "ca_file has no meaning: the connection is not encrypted";
        src.fault(
            &s.span.clone(),
            what,
            format!("write a url that starts with {scheme}://, or leave ca_file out"),
        );
    }
    file(s, src, "ca_file")
}

fn timeout(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> u64 {
    match s.duration(src, "timeout") {
        Some((n, span)) if n == 0 || n > TIMEOUT_MAX => {
            src.fault(&span, format!("timeout is {n} s"), "write 1s to 10m");
            DEFAULT_TIMEOUT
        }
        given => given.map_or(DEFAULT_TIMEOUT, |(n, _)| n),
    }
}

pub(super) fn read_smtp(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Option<Means> {
    let host = s.needed(src, "host", "127.0.0.1");
    let from = address(s, src, "from", "purge@host");
    let to = address(s, src, "to", "{user}@example.org");
    let operator = if s.has("operator") {
        address(s, src, "operator", "storage@example.org")
    } else {
        // Asked for, so that it is known.
        s.string(src, "operator").map(|(a, _)| a)
    };
    let choices = [
        ("starttls", Tls::Starttls),
        ("wrapped", Tls::Wrapped),
        ("opportunistic", Tls::Opportunistic),
        ("none", Tls::None),
    ];
    let tls_given = s.has("tls");
    let user = s.string(src, "user");
    // Whoever is given a password wants it protected.
    let default = if user.is_some() {
        Tls::Starttls
    } else {
        Tls::Opportunistic
    };
    let tls = s.choice(src, "tls", &choices).unwrap_or(default);
    let port = match s.count(src, "port") {
        None if tls == Tls::Wrapped => 465,
        None => 25,
        Some((n, span)) => u16::try_from(n).ok().filter(|n| *n > 0).unwrap_or_else(|| {
            src.fault(&span, format!("port {n} is none"), "write 1 to 65535");
            25
        }),
    };
    let ca = file(s, src, "ca_file");
    let password = secret_file(s, src, "password_file");
    if user.is_some() != (password.is_some() || s.has("password_file")) {
        src.fault(
            &s.span.clone(),
            "user and password_file belong together",
            "give both, or none",
        );
    }
    if let (Some((_, span)), true) = (&user, tls_given && matches!(tls, Tls::None | Tls::Opportunistic)) {
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
        tls,
        ca,
        login: user.map(|(u, _)| u).zip(password),
    }))
}

/// A mail address, with `{user}` where a name may stand.
fn address(
    s: &mut Section<'_, '_>,
    src: &mut Source<'_>,
    key: &'static str,
    such_as: &str,
) -> Option<String> {
    let (text, span) = s.needed(src, key, such_as)?;
    let filled = text.replace("{user}", "someone");
    match filled.parse::<lettre::message::Mailbox>() {
        Ok(_) if key == "to" || filled == text => Some(text),
        Ok(_) => {
            src.fault(
                &span,
                format!("{key} cannot be {text:?}"),
                "{user} stands in `to` only",
            );
            None
        }
        Err(e) => {
            let mend = format!("write such as {such_as:?}");
            src.fault(&span, format!("{key} {text:?} is no address: {e}"), mend);
            None
        }
    }
}

pub(super) fn read_webhook(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Option<Means> {
    let url = s.needed(src, "url", "http://127.0.0.1:8080/hook");
    let url = url.map(|(text, span)| (Url::new(text), span));
    let host = url
        .as_ref()
        .and_then(|(url, span)| webhook_host(src, url, span.clone()));
    let secret = secret_file(s, src, "secret_file");
    let token_file = secret_file(s, src, "token_file");
    let encrypted = url.as_ref().is_some_and(|(u, _)| u.is("https"));
    if s.has("token_file") && !encrypted && host.is_some_and(|host| !is_loopback(&host)) {
        let mend = "write a url that starts with https://";
        src.fault(
            &s.span_of("token_file"),
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

pub(super) fn read_amqp(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Option<Means> {
    let url = s.needed(src, "url", "amqp://127.0.0.1:5672/%2f");
    let url = url.map(|(text, span)| (Url::new(text), span));
    if let Some((url, span)) = &url {
        check_broker(src, url, span, s.has("password_file"));
    }
    let exchange = s.needed(src, "exchange", "purge");
    if let Some((name, span)) = &exchange
        && (name.is_empty() || name.len() > 127)
    {
        src.fault(
            span,
            "exchange is no name",
            "write 1 to 127 characters, such as \"purge\"",
        );
    }
    let routing_key = s.string(src, "routing_key").map(|(key, _)| key);
    let password_file = secret_file(s, src, "password_file");
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

pub(super) fn read_exec(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Option<Means> {
    let command = s.strings(src, "command");
    let timeout = timeout(s, src);
    let Some((words, span)) = command else {
        if !s.has("command") {
            let mend = "add: command = [\"/usr/local/sbin/tell\", \"--json\"]";
            src.fault(&s.span.clone(), "has no command", mend);
        }
        return None;
    };
    let command: Vec<String> = words.into_iter().map(|(word, _)| word).collect();
    let program = command.first().map(PathBuf::from).unwrap_or_default();
    if !program.is_absolute() || !program.is_file() {
        let what = format!("command {:?} is no program", program.display());
        src.fault(&span, what, "write its absolute path; no shell reads it");
    }
    Some(Means::Exec(Exec { command, timeout }))
}
