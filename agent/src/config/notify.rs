//! The `[notify]` table, checked.

use std::ops::Range;
use std::path::PathBuf;

use super::section::{At, Section, Source, suggest};
use super::sinks::{Addresses, Amqp, Exec, Means, Notify, Sink, Smtp, Tls, Webhook};
use crate::notify::event::Kind;
use crate::notify::text::Texts;

/// Owners get a mail a day at most.
const MAIL_EVERY: u64 = 86_400;
/// A digest that is rarer says nothing in time.
const DIGEST_MAX: u64 = 31 * 86_400;
const DEFAULT_TIMEOUT: u64 = 30;
/// Whoever answers later than this answers nobody.
const TIMEOUT_MAX: u64 = 600;
/// A list of so many lines is as much as a mail server takes.
const LIST_MAX_MAX: u64 = 100_000;

/// Reads the table.
pub(super) fn read_notify(mut s: Section<'_, '_>, src: &mut Source<'_>) -> Notify {
    let defaults = Notify::default();
    let mut sinks: Vec<Sink> = Vec::new();
    let readers: [(&'static str, &'static str, ReadMeans); 4] = [
        ("smtp", "notify.smtp", read_smtp),
        ("webhook", "notify.webhook", read_webhook),
        ("amqp", "notify.amqp", read_amqp),
        ("exec", "notify.exec", read_exec),
    ];
    for (key, kind, means) in readers {
        for (table, span) in s.tables(src, key) {
            if let Some(sink) = read_sink(Section::new(kind, table, span), src, (key, means), &sinks) {
                sinks.push(sink);
            }
        }
    }
    let warn_before = s
        .duration(src, "warn_before")
        .map_or(defaults.warn_before, |(n, _)| n);
    let retry_for = s
        .duration(src, "retry_for")
        .map_or(defaults.retry_for, |(n, _)| n);
    let list_max = match s.count(src, "list_max") {
        Some((n, span)) if n > LIST_MAX_MAX => {
            src.fault(
                &span,
                format!("list_max is {n}"),
                format!("write at most {LIST_MAX_MAX}"),
            );
            defaults.list_max
        }
        given => given.map_or(defaults.list_max, |(n, _)| {
            usize::try_from(n).unwrap_or(usize::MAX)
        }),
    };
    let templates = absolute(&mut s, src, "templates");
    if let Some((dir, span)) = &templates
        && let Err(why) = Texts::load(Some(dir))
    {
        src.fault(
            span,
            why,
            "correct it; without the file the built-in text is used",
        );
    }
    let addresses = Addresses {
        map: absolute(&mut s, src, "addresses").map(|(path, _)| path),
        gecos: s.flag(src, "gecos").unwrap_or(false),
    };
    if sinks.is_empty() && src.faults.is_empty() {
        let mend = "add one, such as: smtp = { host = \"127.0.0.1\", port = 25, from = \"purge@host\", to = \"{user}@example.org\" }";
        src.fault(
            &s.span.clone(),
            "[notify] has no smtp, webhook, amqp or exec",
            mend,
        );
    }
    s.finish(src);
    Notify {
        sinks,
        warn_before,
        addresses,
        templates: templates.map(|(path, _)| path),
        list_max,
        retry_for,
    }
}

type ReadMeans = fn(&mut Section<'_, '_>, &mut Source<'_>) -> Option<Means>;

fn read_sink(
    mut s: Section<'_, '_>,
    src: &mut Source<'_>,
    (key, means): (&'static str, ReadMeans),
    others: &[Sink],
) -> Option<Sink> {
    let named = s.string(src, "name");
    let (name, span) = named.unwrap_or_else(|| (key.to_owned(), s.span.clone()));
    if name.is_empty() || !name.chars().all(super::check::is_name_char) {
        src.fault(
            &span,
            format!("name {name:?} is none"),
            "use letters, digits and . _ -",
        );
    }
    if others.iter().any(|o| o.name == name) {
        src.fault(
            &span,
            format!("two sinks are called {name:?}"),
            format!("give this one its own: name = \"{name}-2\""),
        );
    }
    let events = read_events(&mut s, src);
    let default = if key == "smtp" { MAIL_EVERY } else { 0 };
    let digest = match s.duration(src, "digest") {
        Some((n, span)) if n > DIGEST_MAX => {
            src.fault(
                &span,
                format!("digest is {n} s"),
                "write 31d or less: a notice that comes later is none",
            );
            default
        }
        given => given.map_or(default, |(n, _)| n),
    };
    let means = means(&mut s, src);
    s.finish(src);
    Some(Sink {
        name,
        events,
        digest,
        means: means?,
    })
}

fn read_events(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Vec<Kind> {
    let Some((words, span)) = s.strings(src, "events") else {
        return Kind::ALL.to_vec();
    };
    if words.is_empty() {
        src.fault(
            &span,
            "events is empty: nothing would be sent",
            "leave it out for all of them",
        );
    }
    let known: Vec<&str> = Kind::ALL.iter().map(|k| k.as_str()).collect();
    let mut kinds = Vec::new();
    for (word, span) in words {
        match Kind::ALL.into_iter().find(|k| k.as_str() == word) {
            Some(kind) => kinds.push(kind),
            None => src.fault(
                &span,
                format!("event {word:?} is unknown"),
                suggest(&word, &known),
            ),
        }
    }
    kinds
}

fn needed(
    s: &mut Section<'_, '_>,
    src: &mut Source<'_>,
    key: &'static str,
    such_as: &str,
) -> Option<At<String>> {
    let found = s.string(src, key);
    if found.is_none() && !s.has(key) {
        let mend = format!("add: {key} = {such_as:?}");
        src.fault(&s.span.clone(), format!("has no {key}"), mend);
    }
    found
}

/// An absolute path.
fn absolute(
    s: &mut Section<'_, '_>,
    src: &mut Source<'_>,
    key: &'static str,
) -> Option<(PathBuf, Range<usize>)> {
    let (path, span) = s.string(src, key)?;
    if !path.starts_with('/') {
        src.fault(
            &span,
            format!("{key} is not absolute"),
            "write a path that starts with /",
        );
        return None;
    }
    Some((path.into(), span))
}

/// A file that is there: what is missing now would only be found when the first notice is to go out.
fn file(s: &mut Section<'_, '_>, src: &mut Source<'_>, key: &'static str) -> Option<PathBuf> {
    let (path, span) = absolute(s, src, key)?;
    if !path.is_file() {
        let what = format!("{key} {} is no file", path.display());
        src.fault(&span, what, "write it, readable for root only");
    }
    Some(path)
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

fn read_smtp(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Option<Means> {
    let host = needed(s, src, "host", "127.0.0.1");
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
    let password = file(s, src, "password_file");
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
    let (text, span) = needed(s, src, key, such_as)?;
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

fn read_webhook(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Option<Means> {
    let url = needed(s, src, "url", "http://127.0.0.1:8080/hook");
    if let Some((url, span)) = &url {
        let parsed = url.parse::<hyper::Uri>().ok();
        let good = parsed.is_some_and(|u| {
            matches!(u.scheme_str(), Some("http" | "https")) && u.host().is_some_and(|h| !h.is_empty())
        });
        if !good {
            let mend = "write such as \"https://example.org/hook\"";
            src.fault(span, format!("url {url:?} is no http or https address"), mend);
        }
    }
    let secret_file = file(s, src, "secret_file");
    let timeout = timeout(s, src);
    Some(Means::Webhook(Webhook {
        url: url?.0,
        secret_file,
        timeout,
    }))
}

fn read_amqp(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Option<Means> {
    let url = needed(s, src, "url", "amqp://127.0.0.1:5672/%2f");
    if let Some((url, span)) = &url {
        if url.starts_with("amqps:") {
            let mend = "write amqp:// to a broker on this host or a trusted network (or to a TLS tunnel)";
            src.fault(span, "amqps is not supported by this version", mend);
        } else if let Err(e) = url.parse::<lapin::uri::AMQPUri>() {
            let mend = "write such as \"amqp://user@127.0.0.1:5672/%2f\"";
            src.fault(span, format!("url is no AMQP address: {e}"), mend);
        }
    }
    let exchange = needed(s, src, "exchange", "purge");
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
    let password_file = file(s, src, "password_file");
    Some(Means::Amqp(Amqp {
        url: url?.0,
        exchange: exchange?.0,
        routing_key,
        password_file,
    }))
}

fn read_exec(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Option<Means> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::super::Config;
    use super::*;

    fn parse(keys: &str) -> Result<Notify, Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        let volume = "[[volume]]\nname = \"s\"\npath = \"/export/s\"\n[notify]\n";
        std::fs::write(&file, format!("{volume}{keys}\n")).unwrap();
        let read = Config::load(&file).map(|config| config.notify);
        read.map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_sinks_of_the_contract_are_read_with_their_defaults() {
        let notify = parse(
            "smtp = { host = \"127.0.0.1\", port = 2525, from = \"purge@host\", to = \"{user}@example.org\" }\n\
             webhook = { url = \"http://127.0.0.1:8080/hook\" }\n\
             amqp = { url = \"amqp://127.0.0.1:5672/%2f\", exchange = \"purge\" }\n\
             exec = [ { command = [\"/bin/true\"] }, { name = \"other\", command = [\"/bin/false\", \"-x\"], events = [\"purged\"] } ]\n\
             warn_before = \"3d\"",
        )
        .unwrap();
        let names: Vec<(&str, u64, usize)> = notify
            .sinks
            .iter()
            .map(|s| (s.name.as_str(), s.digest, s.events.len()))
            .collect();
        let all = Kind::ALL.len();
        let expected = [
            ("smtp", 86_400, all),
            ("webhook", 0, all),
            ("amqp", 0, all),
            ("exec", 0, all),
            ("other", 0, 1),
        ];
        assert_eq!(names, expected);
        assert_eq!(
            (notify.warn_before, notify.retry_for, notify.list_max),
            (3 * 86_400, 7 * 86_400, 1000)
        );
        let Means::Smtp(smtp) = &notify.sinks.first().unwrap().means else {
            unreachable!("the first is mail")
        };
        assert_eq!((smtp.port, smtp.tls), (2525, Tls::Opportunistic));
    }

    #[test]
    fn what_would_tell_nobody_is_refused_in_words() {
        let smtp = |more: &str| {
            format!("smtp = {{ host = \"h\", from = \"purge@host\", to = \"{{user}}@example.org\"{more} }}")
        };
        let cases = [
            (String::new(), "no smtp, webhook, amqp or exec"),
            (
                "smtp = { host = \"h\", from = \"nobody\", to = \"{user}@x\" }".into(),
                "is no address",
            ),
            ("smtp = { host = \"h\", to = \"{user}@x\" }".into(), "has no from"),
            (smtp(", user = \"u\""), "belong together"),
            (smtp(", prot = 25"), "port"),
            (smtp(", events = [\"purge\"]"), "purged"),
            (smtp(", events = []"), "nothing would be sent"),
            (smtp(", digest = \"60d\""), "a notice that comes later is none"),
            (
                "webhook = { url = \"ftp://x/\" }".into(),
                "no http or https address",
            ),
            (
                "webhook = { url = \"http://x/\", secret_file = \"/nowhere/at/all\" }".into(),
                "is no file",
            ),
            (
                "webhook = [ { url = \"http://x/\" }, { url = \"http://y/\" } ]".into(),
                "two sinks are called",
            ),
            (
                "amqp = { url = \"amqps://x/\", exchange = \"e\" }".into(),
                "amqps is not supported",
            ),
            (
                "amqp = { url = \"amqp://x/\", exchange = \"\" }".into(),
                "no name",
            ),
            ("exec = { command = [\"tell\"] }".into(), "absolute path"),
            (
                format!("{}\ntemplates = \"/nowhere/at/all\"", smtp("")),
                "no directory",
            ),
        ];
        for (keys, part) in cases {
            let faults = parse(&keys).map_err(|f| f.join("\n"));
            let said = faults.expect_err(&keys);
            assert!(said.contains(part), "{keys}: {said}");
        }
    }
}
